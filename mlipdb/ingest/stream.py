"""A source file as one stream of plain bytes, unpacked and hashed in a single pass."""

import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from mlipdb.errors import IngestError

GZIP_MAGIC = b"\x1f\x8b"
SALVAGE_STEP = 16  # bytes
GZIP_WINDOW = 31  # zlib's code for a gzip header with the largest window


class FileDigest:
    """SHA-256 of the bytes of a file as it stands on disk, filled by whoever reads it.

    A reader that reads every byte updates it, so that a 12 GB file is not read a second time only for its hash.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.bytes = 0

    def update(self, data: bytes) -> None:
        """Add the next bytes of the file."""
        self._hash.update(data)
        self.bytes += len(data)

    def sha256(self, path: Path) -> str:
        """Hex digest of the file; reads it again only when the bytes seen here are not the whole of it."""
        if self.bytes == path.stat().st_size:
            return self._hash.hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class ByteStream:
    """Plain bytes of a file that may be gzip (told by its first bytes, not by its name).

    position is the number of plain bytes given out. When the packed data end early or are damaged, every byte that
    could be unpacked is given out first; the next read raises IngestError.
    """

    def __init__(self, path: Path, digest: FileDigest | None = None) -> None:
        self.path = path
        self.position = 0
        self._digest = digest or FileDigest()
        self._file: IO[bytes] = path.open("rb")
        self._packed = self._file.read(2) == GZIP_MAGIC
        self._file.seek(0)
        self._unpacker = zlib.decompressobj(GZIP_WINDOW)
        self._between_members = True
        self._held = b""
        self._damage: str | None = None

    def __enter__(self) -> "ByteStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """About size plain bytes (a packed file may give up to a few times more or fewer); empty at the end.

        Raises IngestError where packed data are cut or damaged.
        """
        data = self._unpacked(size) if self._packed else self._raw(size)
        self.position += len(data)
        return data

    def _raw(self, size: int) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def _unpacked(self, size: int) -> bytes:
        while self._damage is None:
            raw = self._held or self._raw(max(size // 4, 1 << 14))
            if not raw:
                if self._between_members:
                    return b""
                self._damage = "the gzip data end before their end mark"
                break
            plain = self._feed(raw, size)
            if plain:
                return plain
        raise IngestError(
            f"{self.path}: {self._damage} (plain byte {self.position}, packed byte {self._file.tell()}); "
            "the file is cut or damaged: fetch it again and repeat the command, which skips what it has"
        )

    def _feed(self, raw: bytes, size: int) -> bytes:
        """Plain bytes of some packed ones; what does not fit in size is held for the next read."""
        if self._between_members:
            self._unpacker = zlib.decompressobj(GZIP_WINDOW)
            if not raw.strip(b"\0"):  # padding after the last member
                self._held = b""
                return b""
        before = self._unpacker.copy()
        try:
            plain = self._unpacker.decompress(raw, size)
        except zlib.error as error:
            self._damage = f"the gzip data are damaged ({error})"
            return _salvage(before.decompress, raw)
        self._between_members = self._unpacker.eof
        self._held = self._unpacker.unused_data if self._unpacker.eof else self._unpacker.unconsumed_tail
        return plain


def _salvage(decompress: Callable[[bytes], bytes], raw: bytes) -> bytes:
    """What can be unpacked before the damage, in small steps because a failing call gives nothing."""
    parts = []
    try:
        for start in range(0, len(raw), SALVAGE_STEP):
            parts.append(decompress(raw[start : start + SALVAGE_STEP]))
    except zlib.error:
        return b"".join(parts)
    return b"".join(parts)
