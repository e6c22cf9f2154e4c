"""Files whose hash was compared once, remembered beside them so that the next process need not read them whole.

A file counts as the same while its inode, size and both times stand; a change within PAUSE of the check could hide
behind a coarse clock, so a file that young is not remembered but compared again. Only equality matters, so a clock that
is set back costs a comparison and nothing else. Where the file of notes cannot be written, each process compares anew.
"""

import hashlib
import os
import threading
import time
from pathlib import Path

from mlipdb.errors import CorruptError

NAME = "shards.checked"
PAUSE = 2_000_000_000  # nanoseconds


class CheckedFiles:
    """Compares files in a directory with their SHA-256; notes is the file that remembers them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._notes = directory / NAME
        self._known: set[str] | None = None
        self._guard = threading.Lock()

    def check(self, path: str, *, size: int, sha256: str) -> None:
        """Raise CorruptError unless the file at a path in the directory has this size and hash."""
        file = self._directory / path
        if not file.is_file():
            raise CorruptError(f"{file} is missing; restore it from a backup, or run `mlipdb verify` for the extent")
        status = file.stat()
        if status.st_size != size:
            raise CorruptError(
                f"{file} has {status.st_size} bytes where the catalog says {size}; restore it from a backup"
            )
        note = f"{path} {sha256} {status.st_ino} {size} {status.st_mtime_ns} {status.st_ctime_ns}"
        with self._guard:
            if note in self._read():
                return
            found = file_sha256(file)
            if found != sha256:
                raise CorruptError(
                    f"{file} is damaged: its SHA-256 is {found[:16]}…, the catalog says {sha256[:16]}…; "
                    f"restore it from a backup"
                )
            self._remember(note, status)

    def _read(self) -> set[str]:
        if self._known is None:
            try:
                self._known = set(self._notes.read_text().splitlines())
            except (OSError, UnicodeDecodeError):
                self._known = set()
        return self._known

    def _remember(self, note: str, status: os.stat_result) -> None:
        self._read().add(note)
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < PAUSE:
            return
        try:
            # One short write in append mode: lines of several processes do not mix.
            with self._notes.open("ab", buffering=0) as file:
                file.write(f"{note}\n".encode())
        except OSError:
            return  # a disk that is full or read-only: the next process compares again


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
