"""Errors of the catalog's database in words: a damaged file, a full disk, one that cannot be written."""

import sqlite3
from pathlib import Path

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from mlipdb.errors import CatalogError, StorageError


def explain_faults(engine: Engine, *, place: Path) -> None:
    """Let an engine raise CatalogError for a damaged file and StorageError for a disk that takes nothing."""

    def explain(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, sqlite3.DatabaseError):
            _explain(str(context.original_exception), place, context.original_exception)

    event.listen(engine, "handle_error", explain)


def _explain(message: str, place: Path, error: BaseException) -> None:
    if "malformed" in message or "not a database" in message:
        raise CatalogError(
            f"{place}: the catalog is damaged ({message}); restore it from a backup, or run "
            f"`mlipdb --db {place} repair`, which makes it again from the shards"
        ) from error
    if "full" in message or "disk I/O error" in message:
        raise StorageError(
            f"{place}: the catalog cannot be written ({message}); what was stored before is whole: free space there "
            f"and run the command again"
        ) from error
    if "readonly" in message or "unable to open" in message:
        raise StorageError(
            f"{place}: the catalog cannot be written ({message}); copy the database to a disk that you may write, "
            f"or get the right to write there"
        ) from error
