"""Connections to the catalog: SQLite in the database directory, or PostgreSQL by URL."""

import os
import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, NoSuchModuleError

from mlipdb.catalog.read_only import read_only_url
from mlipdb.errors import CatalogError

SQLITE_NAME = "catalog.sqlite"
VARIABLE = "MLIPDB_CATALOG"
ID = "{id}"
# The cache, in KiB, holds what an ingest touches of the indexes of a million structures; it is taken as it is used.
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", f"cache_size=-{192 * 1024}")


def default_catalog() -> str:
    """Where the catalog of a new database goes when nobody says: SQLite in its directory, or as $MLIPDB_CATALOG says.

    That is a URL with ``{id}`` in it, for which each new database gets a word of its own.
    """
    url = os.environ.get(VARIABLE)
    if not url:
        return SQLITE_NAME
    if ID not in url:
        raise CatalogError(
            f"${VARIABLE} is {url!r}, one catalog for every new database; put {ID} into it, as in "
            f"postgresql+psycopg://host/mlipdb_{ID}, or give one database its catalog with `mlipdb db create --catalog`"
        )
    return url.replace(ID, uuid.uuid4().hex[:12])


def make_engine(directory: Path, catalog: str) -> Engine:
    """An engine for a SQLite file name in the directory, or for a URL such as postgresql+psycopg://host/name."""
    if "://" in catalog:
        return create_engine(catalog, pool_pre_ping=True)
    if (url := read_only_url(directory / catalog)) is not None:
        return create_engine(url)
    engine = create_engine(f"sqlite:///{directory / catalog}", connect_args={"timeout": 30})
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin_now)
    return engine


def make_postgresql_database(catalog: str) -> None:
    """Create the PostgreSQL database that a URL names unless it is there; nothing for a SQLite file name.

    Raises CatalogError for a URL of anything else, or when the server refuses.
    """
    if "://" not in catalog:
        return
    url = make_url(catalog)
    if url.get_backend_name() != "postgresql":
        raise CatalogError(f"catalog {url.render_as_string()}: give {SQLITE_NAME} or a URL of PostgreSQL")
    try:
        _create_missing(url)
    except (DBAPIError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise CatalogError(
            f"catalog {url.render_as_string()}: {str(error).splitlines()[0]}; is the server running, may the role "
            "connect and create databases, and is the driver installed (pip install 'mlipdb[postgres]')?"
        ) from error


def _create_missing(url: URL) -> None:
    admin = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            there = text("SELECT 1 FROM pg_database WHERE datname = :name")
            if connection.scalar(there, {"name": url.database}) is None:
                name = admin.dialect.identifier_preparer.quote_identifier(str(url.database))
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
    finally:
        admin.dispose()


def _set_pragmas(connection: Any, _record: Any) -> None:
    """Durable commits, readers beside the writer, foreign keys; and transactions that cover everything."""
    connection.isolation_level = None  # the driver must not begin or commit on its own
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_now(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")
