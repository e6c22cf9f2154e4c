"""One writer at a time for a database directory."""

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import IO

from mlipdb.errors import LockedError, StorageError
from mlipdb.store.disk import storage_errors

HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)


def take_lock(descriptor: int, place: Path) -> None:
    """Lock an open file until it is closed.

    Raises LockedError where another process holds the lock, StorageError where the file system of the place has none.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            raise LockedError(f"another process is writing {place}; wait for it or stop it") from error
        raise StorageError(
            f"{place}: its file system gives no lock ({error.strerror}), so nothing keeps a second writer out; mount "
            f"it with locks (Lustre: the option `flock`; NFS: without `nolock`, the server's lock service running), or "
            f"use a disk of this machine"
        ) from error


class WriterLock:
    """An advisory lock on a file; the kernel drops it when its process dies. Re-entrant within one object."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._depth = 0

    def __enter__(self) -> "WriterLock":
        if self._depth == 0:
            self._file = self._acquire()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0 and self._file is not None:
            self._file.close()
            self._file = None

    def _acquire(self) -> IO[str]:
        with storage_errors(self._path.parent):
            file = self._path.open("a+")
        try:
            take_lock(file.fileno(), self._path.parent)
        except LockedError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise LockedError(
                f"{self._path.parent}: process {holder} is writing to this database; wait for it or stop it"
            ) from error
        except StorageError:
            file.close()
            raise
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file
