"""Connections to the catalog: SQLite in the database directory, or PostgreSQL by URL."""

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event

SQLITE_NAME = "catalog.sqlite"


def make_engine(directory: Path, catalog: str) -> Engine:
    """An engine for a SQLite file name in the directory, or for a URL such as postgresql+psycopg://host/name."""
    if "://" in catalog:
        return create_engine(catalog, pool_pre_ping=True)
    engine = create_engine(f"sqlite:///{directory / catalog}", connect_args={"timeout": 30})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin_now)
    return engine


def _set_pragmas(connection: Any, _record: Any) -> None:
    """Durable commits, readers beside the writer, foreign keys; and transactions that cover everything."""
    connection.isolation_level = None  # the driver must not begin or commit on its own
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "cache_size=-65536"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_now(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")
