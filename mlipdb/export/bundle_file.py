"""The container of a bundle: a plain ZIP file whose every byte is under a hash.

Members are stored, not compressed by ZIP, so that any unzip opens them. ``manifest.json`` names every other member
with its size and SHA-256. The archive's comment, the last 71 bytes of the file, is ``sha256:`` and the hash of all
before those digits.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
import zstandard

from mlipdb.errors import CorruptError, LabelError

BUNDLE_VERSION = 1
FORMAT = "mlipdb-bundle"
MANIFEST = "manifest.json"
LABEL = b"sha256:"
DIGITS = 64
README = """This is a bundle of an mlipdb database: the structures of one frozen subset with their labels, the
sources and methods they come from, and the split. Another database takes it in with

    mlipdb bundle take FILE

Rows are JSON lines under zstd, records are mlipdb's own, one after another, as long as the rows say (docs/export.md).
"""


class BundleWriter:
    """Writes members one after another, then the manifest, then the hash of everything."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._archive = zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED)
        self._parts: dict[str, dict[str, Any]] = {}
        self._store("README.txt", README.encode())

    def add(self, name: str, data: bytes) -> None:
        """Add a member that the manifest names."""
        self._parts[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self._store(name, data)

    def add_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Add rows as JSON lines under zstd."""
        lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
        self.add(name, zstandard.ZstdCompressor(level=6).compress(lines))

    def finish(self, facts: dict[str, Any]) -> str:
        """Write manifest and hash; the hash."""
        manifest = {"format": FORMAT, "version": BUNDLE_VERSION, **facts, "parts": self._parts}
        self._store(MANIFEST, json.dumps(manifest, indent=1).encode())
        self._archive.comment = LABEL + b"0" * DIGITS
        self._archive.close()
        found = _hash(self._path)
        with self._path.open("r+b") as file:
            file.seek(-DIGITS, os.SEEK_END)
            file.write(found.encode())
        return found

    def _store(self, name: str, data: bytes) -> None:
        self._archive.writestr(zipfile.ZipInfo(name), data)  # ZipInfo's own date: equal bundles have equal bytes


def _hash(path: Path) -> str:
    """SHA-256 of everything but the last 64 bytes."""
    digest, left = hashlib.sha256(), path.stat().st_size - DIGITS
    with path.open("rb") as file:
        while left > 0 and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


class BundleReader:
    """The members of a bundle whose hashes all fit."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self._archive = archive

    def names(self, folder: str) -> list[str]:
        """Numbers of the members in a folder: ``00000``, ``00001``, …, in order."""
        parts = (name.split("/") for name in self.manifest["parts"])
        return sorted({words[1].split(".")[0] for words in parts if len(words) == 2 and words[0] == folder})

    def part(self, name: str) -> bytes:
        """The bytes of a member. Raises CorruptError where it is not what the manifest says."""
        said = self.manifest["parts"].get(name)
        if said is None:
            raise CorruptError(f"{self.path}: the manifest names no {name}; it was not written by mlipdb")
        data = self._archive.read(name)
        if len(data) != said["bytes"] or hashlib.sha256(data).hexdigest() != said["sha256"]:
            raise CorruptError(f"{self.path}: {name} is not what the manifest says; fetch the bundle again")
        return data

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """The rows of a member."""
        for line in zstandard.ZstdDecompressor().decompress(self.part(name)).splitlines():
            yield orjson.loads(line)


@contextmanager
def open_bundle_file(path: Path) -> Iterator[BundleReader]:
    """A bundle, open for reading once its hash fits.

    Raises CorruptError for a file that is no bundle, is cut or damaged, or is of a later version.
    """
    _check_whole(path)
    with ExitStack() as stack:
        with sound(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            manifest = json.loads(archive.read(MANIFEST))
            _check_manifest(path, manifest)
        yield BundleReader(path, archive, manifest)


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Whatever a file that is no work of ours makes of the code inside becomes a CorruptError."""
    faults = (zipfile.BadZipFile, LookupError, TypeError, ValueError, zstandard.ZstdError, LabelError)
    try:
        yield
    except faults as error:
        raise CorruptError(
            f"{path}: its hash fits but its content does not ({type(error).__name__}: {error}); it was not written by "
            "mlipdb, or by a version with a fault: make it again"
        ) from error


def _check_whole(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(size - DIGITS - len(LABEL), 0))
        tail = file.read()
    if not tail.startswith(LABEL):
        cut = head == b"PK\x03\x04"
        raise CorruptError(
            f"{path} has no hash at its end ({size} bytes): "
            + ("it is cut off; fetch it again" if cut else "it is no mlipdb bundle; make one with `mlipdb bundle make`")
        )
    said, found = tail[len(LABEL) :].decode(errors="replace"), _hash(path)
    if said != found:
        raise CorruptError(f"{path} is damaged: SHA-256 {found[:16]}…, its end says {said[:16]}…; fetch it again")


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    if manifest["format"] != FORMAT:
        raise CorruptError(f"{path}: its format is {manifest['format']!r}, not {FORMAT!r}")
    if manifest["version"] != BUNDLE_VERSION:
        raise CorruptError(
            f"{path}: bundle version {manifest['version']}; this mlipdb reads {BUNDLE_VERSION}: upgrade mlipdb"
        )
