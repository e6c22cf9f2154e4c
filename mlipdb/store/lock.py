"""One writer at a time for a database directory."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import IO

from mlipdb.errors import LockedError
from mlipdb.store.disk import storage_errors


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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise LockedError(
                f"{self._path.parent}: process {holder} is writing to this database; wait for it or stop it"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file
