"""A source file as one stream of plain bytes, unpacked and hashed in a single pass."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import IO

from mlipdb.errors import IngestError
from mlipdb.ingest.packing import DAMAGE, HEAD, Packing, Unpacker, packing_of


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
    """Plain bytes of a file that may be packed with gzip, bzip2, xz or Zstandard, told by its first bytes.

    position is the number of plain bytes given out. When the packed data end early or are damaged, every byte that
    could be unpacked is given out first; the next read raises IngestError.
    """

    def __init__(self, path: Path, digest: FileDigest | None = None) -> None:
        self.path = path
        self.position = 0
        self._digest = digest or FileDigest()
        self._file: IO[bytes] = path.open("rb")
        self._packing = packing_of(self._file.read(HEAD))
        self._file.seek(0)
        self._unpacker: Unpacker | None = None  # None between members
        self._held = b""  # read from the file, not yet given to an unpacker
        self._member, self._given = 0, 0  # packed byte at which the member starts; plain bytes that it gave
        self._damage: str | None = None

    def __enter__(self) -> "ByteStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """About size plain bytes (a packed file may give fewer, or a few times more); empty at the end.

        Raises IngestError where packed data are cut or damaged.
        """
        data = self._raw(size) if self._packing is None else self._unpacked(size, self._packing)
        self.position += len(data)
        return data

    def _raw(self, size: int) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def _unpacked(self, size: int, packing: Packing) -> bytes:
        parts: list[bytes] = []
        wanted = size
        while wanted > 0 and self._damage is None:
            if self._unpacker is None:
                self._unpacker = self._next_member(packing)
            if self._unpacker is None:
                return b"".join(parts)
            plain = self._step(self._unpacker, wanted, packing)
            parts.append(plain)
            wanted -= len(plain)
        if self._damage is not None and not any(parts):
            raise IngestError(
                f"{self.path}: {self._damage} (plain byte {self.position}, packed byte {self._file.tell()}); "
                "the file is cut or damaged: fetch it again and repeat the command, which skips what it has"
            )
        return b"".join(parts)

    def _next_member(self, packing: Packing) -> Unpacker | None:
        """An unpacker for the member that follows, past zeros that fill up a block; None at the end of the file."""
        while not self._held.lstrip(b"\0"):
            self._held = self._raw(packing.step)
            if not self._held:
                return None
        self._held = self._held.lstrip(b"\0")
        self._member, self._given = self._file.tell() - len(self._held), 0
        return packing.unpacker()

    def _step(self, unpacker: Unpacker, size: int, packing: Packing) -> bytes:
        """Plain bytes of the next few packed ones; notes damage and the end of a member."""
        data = b""
        if unpacker.needs_input:
            data = self._held[: packing.step] or self._raw(packing.step)
            self._held = self._held[packing.step :]
        ended = unpacker.needs_input and not data
        try:
            plain = unpacker.decompress(data, size)
        except DAMAGE as error:
            self._damage = f"the {packing.name} data are damaged ({error})"
            return self._salvaged(packing, before=self._file.tell() - len(self._held) - len(data))
        if unpacker.eof:
            self._held = unpacker.unused_data + self._held
            self._unpacker = None
        elif ended and not plain:
            self._damage = f"the {packing.name} data end before their end mark"
        self._given += len(plain)
        return plain

    def _salvaged(self, packing: Packing, *, before: int) -> bytes:
        """What the failing call kept back, though it comes before the damage: the member again, at its end bytewise."""
        unpacker, found, kept = packing.unpacker(), 0, bytearray()
        with self.path.open("rb") as file:
            file.seek(self._member)
            try:
                while data := file.read(packing.step if file.tell() + packing.step <= before else 1):
                    plain = unpacker.decompress(data)
                    kept += plain[max(self._given - found, 0) :]
                    found += len(plain)
            except DAMAGE:
                return bytes(kept)
        return bytes(kept)
