"""The lines of a source file that may be packed."""

import io

from mlipdb.ingest.stream import ByteStream


def line_reader(stream: ByteStream) -> io.BufferedReader:
    """A buffered file over a stream, for Python's fast readline; IngestError passes through it."""
    return io.BufferedReader(_Raw(stream), buffer_size=1 << 20)


class _Raw(io.RawIOBase):
    """A ByteStream with Python's file interface."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # narrower than Buffer
        data = self._rest or self._stream.read(len(buffer))
        taken = min(len(data), len(buffer))
        buffer[:taken] = data[:taken]
        self._rest = data[taken:]
        return taken
