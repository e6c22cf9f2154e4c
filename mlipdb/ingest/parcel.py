"""Messages between two processes of one machine.

A large one lies in memory of its own and only its handle is sent, so the sender never waits for a busy receiver.
"""

import mmap
import os
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler, recv_handle, send_handle
from typing import Any

SMALL = 1 << 15  # bytes that the connection's own buffer takes in
_WITHIN, _APART = b"w", b"a"


def dump(message: Any) -> bytes:
    """A message as the bytes that send_dumped takes."""
    return bytes(ForkingPickler.dumps(message))


def send_dumped(connection: Connection, data: bytes, *, pid: int) -> None:
    """Send what dump made of a message to the process at the connection's other end."""
    if len(data) <= SMALL:
        connection.send_bytes(_WITHIN + data)
        return
    handle = _memory(data)
    try:
        connection.send_bytes(_APART)
        send_handle(connection, handle, pid)
    finally:
        os.close(handle)


def receive(connection: Connection) -> Any:
    """The next message; EOFError or OSError where the other end is gone."""
    data = connection.recv_bytes()
    if data[:1] == _WITHIN:
        return ForkingPickler.loads(memoryview(data)[1:])
    handle = recv_handle(connection)
    try:
        with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as memory:
            return ForkingPickler.loads(memory)
    finally:
        os.close(handle)


def _memory(data: bytes) -> int:
    """A handle to memory that holds data and ends with its last handle; a nameless file where there is none."""
    handle = os.memfd_create("mlipdb") if hasattr(os, "memfd_create") else _nameless_file()
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
    except OSError:
        with suppress(OSError):
            os.close(handle)
        raise
    return handle


def _nameless_file() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
