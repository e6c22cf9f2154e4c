"""Move a catalog to another place: SQLite to PostgreSQL, or back."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, func, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from mlipdb.catalog.base import Base
from mlipdb.catalog.engine import SQLITE_NAME, make_engine, make_postgresql_database
from mlipdb.catalog.schema import check_revision, upgrade
from mlipdb.errors import CatalogError, LockedError
from mlipdb.manifest import Manifest, read_manifest, write_manifest
from mlipdb.store.lock import WriterLock

CHUNK = 10_000
# In the target from the first moment until the database uses it; then what is there is known to be a copy that may go.
MARK = Table("catalog_copy", MetaData(), Column("uuid", String(64), primary_key=True))


@dataclass(frozen=True)
class CopyReport:
    """Where the catalog was, where it is now, and the rows of each table."""

    old: str
    new: str
    rows: dict[str, int]


@dataclass(frozen=True)
class _Sum:
    """The number of rows and a sum of their hashes, which does not depend on their order."""

    rows: int
    hash: int


def copy_catalog(directory: Path, target: str, *, progress: Callable[[str, int], None] | None = None) -> CopyReport:
    """Copy the catalog of a database to target, compare, and let the database use the copy; the old one stays.

    target is a PostgreSQL URL, whose database is made where the server has none, or the name of a new SQLite file in
    the directory. Nobody can write meanwhile. When the process dies, the database has its old catalog, and a second
    call starts again. Raises CatalogError where the target holds something else, LockedError while somebody writes.
    """
    manifest = read_manifest(directory)
    _check_target(directory, manifest, target)
    source = make_engine(directory, manifest.catalog)
    with WriterLock(directory / "ingest.lock"), WriterLock(directory / "lock"):
        check_revision(source, place=directory)
        make_postgresql_database(target)
        engine = make_engine(directory, target)
        try:
            with _frozen(source, manifest.uuid) as reading:
                _start(engine, directory, target, uuid=manifest.uuid)
                rows = _copy_tables(reading, engine, progress or _silent)
            _finish(engine)
            write_manifest(directory, Manifest(uuid=manifest.uuid, catalog=target))
            MARK.drop(engine)
        except DBAPIError as error:
            raise CatalogError(
                f"{_shown(target)}: {str(error.orig).splitlines()[0]}; the database still has its old catalog"
            ) from error
        finally:
            engine.dispose()
            source.dispose()
    return CopyReport(old=_shown(manifest.catalog), new=_shown(target), rows=rows)


def _silent(table: str, rows: int) -> None:
    """No progress wanted."""


def _shown(catalog: str) -> str:
    """A catalog without its password."""
    return make_url(catalog).render_as_string() if "://" in catalog else catalog


def _check_target(directory: Path, manifest: Manifest, target: str) -> None:
    if target == manifest.catalog:
        raise CatalogError(f"{directory}: {_shown(target)} is its catalog already")
    if "://" not in target and (Path(target).name != target or not target.endswith(".sqlite")):
        raise CatalogError(
            f"catalog {target!r}: give a URL such as postgresql+psycopg://host/name, or the name of a file in the "
            f"database directory that ends in .sqlite, such as {SQLITE_NAME}"
        )


@contextmanager
def _frozen(engine: Engine, uuid: str) -> Iterator[Connection]:
    """One moment of the source, with other hosts' writers kept out, too."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
            locked = connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": UUID(uuid).int % 2**63})
            if not locked:
                raise LockedError("another process is writing to this catalog; wait for it or stop it")
        yield connection


def _start(engine: Engine, directory: Path, target: str, *, uuid: str) -> None:
    """An empty catalog with the mark, in place of nothing or of a copy that was broken off."""
    tables = inspect(engine).get_table_names()
    if tables:
        with engine.connect() as connection:
            marked = MARK.name in tables and connection.scalar(select(MARK.c.uuid)) == uuid
        if not marked:
            raise CatalogError(
                f"{_shown(target)} holds {len(tables)} tables and no broken-off copy of this database; "
                "name an empty place, or remove what is there if it is not needed"
            )
        _empty(engine, directory, target)
    with engine.begin() as connection:
        MARK.create(connection)
        connection.execute(MARK.insert(), {"uuid": uuid})
    upgrade(engine)


def _empty(engine: Engine, directory: Path, target: str) -> None:
    if engine.dialect.name == "sqlite":
        engine.dispose()
        for suffix in ("-wal", "-shm", ""):  # the file itself last: without its journal it is empty or marked
            (directory / f"{target}{suffix}").unlink(missing_ok=True)
        return
    found = MetaData()
    with engine.begin() as connection:
        found.reflect(connection)
        found.drop_all(connection)


def _copy_tables(reading: Connection, engine: Engine, progress: Callable[[str, int], None]) -> dict[str, int]:
    rows = {}
    for table in Base.metadata.sorted_tables:
        progress(table.name, 0)
        with engine.begin() as writing:
            written = _copy_table(table, reading, writing, progress)
        with engine.connect() as again:
            found = _sum(values for chunk in _chunks(table, again) for values in chunk)
        if found != written:
            raise CatalogError(
                f"table {table.name}: {written.rows} rows were copied, {found.rows} are there"
                f"{'' if found.rows != written.rows else ' with other content'}; the database still has its old catalog"
            )
        rows[table.name] = written.rows
    return rows


def _copy_table(table: Table, reading: Connection, writing: Connection, progress: Callable[[str, int], None]) -> _Sum:
    count, total = 0, 0
    for chunk in _chunks(table, reading):
        names = [column.name for column in table.columns]
        writing.execute(table.insert(), [dict(zip(names, values, strict=True)) for values in chunk])
        part = _sum(iter(chunk))
        count, total = count + part.rows, (total + part.hash) % 2**64
        progress(table.name, count)
    return _Sum(count, total)


def _chunks(table: Table, connection: Connection) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a table, with times in UTC: SQLite forgets the zone, PostgreSQL gives the session's."""
    moments = [place for place, column in enumerate(table.columns) if column.type.python_type is datetime]
    result = connection.execution_options(yield_per=CHUNK).execute(select(table))
    for part in result.partitions():
        yield [_in_utc(tuple(row), moments) for row in part]


def _in_utc(values: tuple[Any, ...], moments: list[int]) -> tuple[Any, ...]:
    if not moments:
        return values
    changed = list(values)
    for place in moments:
        moment = changed[place]
        if moment is not None:
            changed[place] = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return tuple(changed)


def _sum(rows: Iterator[tuple[Any, ...]]) -> _Sum:
    count, total = 0, 0
    for values in rows:
        plain = [json.dumps(value, sort_keys=True) if isinstance(value, dict) else value for value in values]
        digest = hashlib.blake2b(repr(plain).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        count, total = count + 1, (total + int.from_bytes(digest, "big")) % 2**64
    return _Sum(count, total)


def _finish(engine: Engine) -> None:
    """Let PostgreSQL count on from the largest ids, and both know the sizes of their tables."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            for table in Base.metadata.sorted_tables:
                for column in table.primary_key.columns:
                    _count_on(connection, table, column)
        connection.execute(text("ANALYZE"))


def _count_on(connection: Connection, table: Table, column: Column[Any]) -> None:
    sequence = connection.scalar(select(func.pg_get_serial_sequence(table.name, column.name)))
    largest = connection.scalar(select(func.max(column))) if sequence else None
    if largest is not None:
        connection.execute(select(func.setval(sequence, largest)))
