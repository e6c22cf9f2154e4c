"""A folder of one JSON document and raw arrays, written whole or not at all, checked by SHA-256 when read."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlipdb.errors import CorruptError, NotFoundError

FORMAT = "mlipdb-checkpoint"
VERSION = 1
DOCUMENT = "checkpoint.json"

Arrays = Mapping[str, np.ndarray]


def write_archive(path: Path, document: Mapping[str, Any], groups: Mapping[str, Arrays]) -> None:
    """Write the document and each group of arrays (GROUP.npz) to the folder, which must not exist yet.

    Bytes go to a temporary folder beside it and are synced before it gets its name: a crash leaves no half-written
    checkpoint.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for group, arrays in groups.items():
        with (temporary / f"{group}.npz").open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
    hashes = {f"{group}.npz": _sha256(temporary / f"{group}.npz") for group in groups}
    whole = {"format": FORMAT, "version": VERSION, "files": hashes, **document}
    (temporary / DOCUMENT).write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
    for item in (*temporary.iterdir(), temporary):
        sync(item)
    temporary.rename(path)
    sync(path.parent)


def read_document(path: Path) -> dict[str, Any]:
    """The JSON document of a checkpoint folder. Raises NotFoundError, CorruptError for another format or version."""
    file = path / DOCUMENT
    if not file.is_file():
        raise NotFoundError(f"{path} is not a checkpoint: it has no {DOCUMENT}")
    try:
        document = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise CorruptError(f"{file}: {error}; restore the file or use another checkpoint") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CorruptError(f"{file}: it does not say that its format is {FORMAT!r}")
    if document.get("version") != VERSION:
        raise CorruptError(
            f"{file}: version {document.get('version')}, but this mlipdb reads version {VERSION}; "
            "use the mlipdb that wrote it"
        )
    return document


def read_arrays(path: Path, document: Mapping[str, Any], group: str) -> dict[str, np.ndarray]:
    """The arrays of one group. Raises CorruptError when the file's SHA-256 is not the document's."""
    file = path / f"{group}.npz"
    expected = document["files"].get(file.name)
    if expected is None or not file.is_file():
        raise NotFoundError(f"{path} holds no {file.name}")
    found = _sha256(file)
    if found != expected:
        raise CorruptError(f"{file}: sha256 is {found}, {DOCUMENT} says {expected}; the file was changed or damaged")
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def replace_text(path: Path, text: str) -> None:
    """Replace a small file at once: readers see the old text or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
