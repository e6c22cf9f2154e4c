"""Which files an ingest reads: those that were named, and those of a folder that the reader knows as its own."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlipdb.errors import IngestError
from mlipdb.ingest.reader import Reader
from mlipdb.ingest.stream import ByteStream, FileDigest

HEAD = 1 << 16  # plain bytes of a file that a reader is shown to know its format


@dataclass(frozen=True)
class InputFile:
    """A file, or a folder that is one record of its format, and the name that its source knows it by."""

    path: Path
    name: str


def input_files(paths: Sequence[Path], reader: Reader) -> list[InputFile]:
    """The files to read: those given as they stand; for a folder, those of its tree that the reader claims, sorted.

    A name is the file's own, or its path inside the folder given. Where two would be equal, it is the path inside the
    folder that holds them all. Raises IngestError where a path is missing or a folder holds nothing of the format.
    """
    files = [file for path in paths for file in _files_of(path, reader)]
    if len({file.name for file in files}) == len(files):
        return files
    above = Path(os.path.commonpath([file.path.resolve().parent for file in files]))
    return [InputFile(file.path, file.path.resolve().relative_to(above).as_posix()) for file in files]


def _files_of(path: Path, reader: Reader) -> list[InputFile]:
    if not path.exists():
        raise IngestError(f"{path}: cannot be read (No such file or directory); check the path")
    if not path.is_dir() or reader.claims(path, b"") is not None:
        return [InputFile(path, path.name or path.resolve().name)]
    found = [InputFile(file, file.relative_to(path).as_posix()) for file in _claimed(path, reader)]
    if not found:
        raise IngestError(
            f"{path}: no file of this folder looks like {reader.name} (usual names end in "
            f"{', '.join(reader.suffixes)}); name the files themselves, or try `mlipdb ingest auto {path}`"
        )
    return found


def _claimed(folder: Path, reader: Reader) -> Iterator[Path]:
    """Files and folders of a tree that the reader claims, in the order of their names; none inside a claimed folder."""
    for entry in entries(folder):
        if reader.claims(entry, b"" if entry.is_dir() else plain_head(entry)) is not None:
            yield entry
        elif entry.is_dir() and not entry.is_symlink():
            yield from _claimed(entry, reader)


def entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without hidden names."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise IngestError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error


def files_below(folder: Path) -> Iterator[Path]:
    """Every file of a tree in sorted order."""
    for entry in entries(folder):
        if entry.is_file():
            yield entry
        elif entry.is_dir() and not entry.is_symlink():
            yield from files_below(entry)


def plain_head(path: Path, size: int = HEAD) -> bytes:
    """The first plain bytes of a file that may be packed; what could be unpacked where it is damaged.

    Raises IngestError where the file cannot be opened.
    """
    parts: list[bytes] = []
    have = 0
    try:
        with ByteStream(path) as stream:
            while have < size and (data := stream.read(size - have)):
                parts.append(data)
                have += len(data)
    except IngestError:
        pass  # the reader itself reports damage, with its place
    except OSError as error:
        raise IngestError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return b"".join(parts)[:size]


def content_sha256(path: Path, digest: FileDigest) -> str:
    """SHA-256 of a file, or of the names and hashes of everything in a folder."""
    if not path.is_dir():
        return digest.sha256(path)
    whole = hashlib.sha256()
    for entry in files_below(path):
        with entry.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{found} {entry.relative_to(path).as_posix()}\n".encode())
    return whole.hexdigest()
