"""A SQLite catalog in a directory that cannot be written, which SQLite in its usual mode refuses even to read."""

import os
from pathlib import Path
from urllib.parse import quote

from mlipdb.errors import StorageError


def read_only_url(path: Path) -> str | None:
    """SQLAlchemy's URL for a catalog that can only be read; None where it can be written or is not there.

    Raises StorageError where rows that were written last cannot be seen without writing.
    """
    if not path.exists() or os.access(path.parent, os.W_OK):
        return None
    log, shared = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    pending = log.exists() and log.stat().st_size > 0
    if pending and not shared.exists():
        raise StorageError(
            f"{path}: the last writer did not close this catalog, and the directory cannot be written to finish its "
            f"work; open it once with `mlipdb verify` where it can be written"
        )
    # Without a log nobody writes, so the file can be taken as it is; with one, the writer's memory shows what is new.
    mode = "mode=ro" if pending else "immutable=1"
    return f"sqlite:///file:{quote(str(path.resolve()))}?{mode}&uri=true"
