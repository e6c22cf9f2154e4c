"""Packed bytes to plain ones: gzip, bzip2, xz and Zstandard behind one small interface."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import zstandard

GZIP_WINDOW = 31  # zlib's code for a gzip header with the largest window
HEAD = 10  # bytes that tell a packing
# A block's own mark follows bzip2's "BZh" and level, so a text that begins with these letters is not mistaken.
_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
DAMAGE = (zlib.error, OSError, EOFError, lzma.LZMAError, zstandard.ZstdError, ValueError)  # what a failing call raises


@runtime_checkable
class Unpacker(Protocol):
    """Unpacks one member of a packed file."""

    @property
    def eof(self) -> bool:
        """Whether the member's end mark was met."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came behind the end mark."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing more can be unpacked from what it was given."""
        ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Plain bytes, at most max_length where the library can stop there; the rest comes with the next call."""
        ...


@dataclass(frozen=True)
class Packing:
    """A way to pack: its name in messages, a new unpacker, and how many packed bytes to give it in one call."""

    name: str
    unpacker: Callable[[], Unpacker]
    step: int = 1 << 18


class _Gzip:
    """zlib's decompressor, which wants the input that it did not take back."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(GZIP_WINDOW)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))


class _Zstandard:
    """zstandard's decompressor, which gives everything at once; so it is fed in small steps."""

    needs_input = True

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor().decompressobj()

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(data) if data else b""


GZIP = Packing("gzip", _Gzip)
BZIP2 = Packing("bzip2", bz2.BZ2Decompressor)
XZ = Packing("xz", lzma.LZMADecompressor)
ZSTANDARD = Packing("zstd", _Zstandard, step=1 << 14)


def packing_of(head: bytes) -> Packing | None:
    """The packing of a file by its first bytes, None where they are plain."""
    if head.startswith(b"\x1f\x8b"):
        return GZIP
    if head.startswith(b"BZh") and head[4:10] in _BZIP2_BLOCKS:
        return BZIP2
    if head.startswith(b"\xfd7zXZ\x00"):
        return XZ
    # A frame, or one of the frames to skip that parallel packers begin with.
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[:1] and head[0] >> 4 == 5):
        return ZSTANDARD
    return None
