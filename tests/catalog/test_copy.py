"""A catalog moves between SQLite and PostgreSQL with every row, or stays where it is."""

from contextlib import closing
from datetime import UTC, datetime

import pytest
from sqlalchemy import inspect, select, text

import mlipdb
from mlipdb import subsets
from mlipdb.catalog import Base, Source
from mlipdb.catalog.copy import MARK, _sum, copy_catalog
from mlipdb.errors import CatalogError, LockedError
from mlipdb.labels import Method
from mlipdb.manifest import read_manifest
from mlipdb.store.lock import WriterLock
from mlipdb.testing.kill import run_and_kill
from mlipdb.testing.samples import sample_records

PROGRAM = """
import sys
from pathlib import Path
from mlipdb.catalog.copy import copy_catalog
print("ready", flush=True)
copy_catalog(Path(sys.argv[1]), sys.argv[2])
"""


def append(db, start, count=40):
    source = db.open_source("made", reader="none", uri="made in the test")
    records = sample_records(count, start=start)
    return db.append(records, source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE")))


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request, tmp_path, fill_every_table):
    """A database with structures, labels, a subset, and a row in every other table."""
    catalog = "catalog.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    database = mlipdb.create(tmp_path / "db", catalog=catalog)
    append(database, 0)
    subsets.freeze(database, "first", filter="id<=30")
    fill_every_table(database.engine)
    yield database
    database.close()


@pytest.fixture
def target(db, request):
    """A place of the other kind; its sessions live in another time zone."""
    if db.engine.dialect.name == "postgresql":
        return "moved.sqlite"
    return request.getfixturevalue("postgresql_url") + "&options=-ctimezone%3DAmerica/New_York"


def every_row(engine):
    """All rows of all tables, in an order of their own, times as moments."""

    def plain(value):
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        return value

    with engine.connect() as connection:
        return {
            name: sorted(([plain(value) for value in row] for row in connection.execute(select(table))), key=repr)
            for name, table in Base.metadata.tables.items()
        }


def test_every_row_arrives_and_the_database_works_on(db, target):
    before, hash = every_row(db.engine), subsets.load(db, "first").hash
    report = copy_catalog(db.path, target)
    with closing(mlipdb.open(db.path)) as moved:
        assert read_manifest(db.path).catalog == target
        assert moved.engine.dialect.name != db.engine.dialect.name
        assert every_row(moved.engine) == before
        assert report.rows == {name: len(rows) for name, rows in before.items()}
        assert all(report.rows.values())
        assert moved.query("id<=30").ids.tolist() == subsets.load(moved, "first").ids.tolist()
        assert append(moved, 40) == list(range(41, 81))
        assert subsets.freeze(moved, "again", filter="id<=30").hash == hash
        assert MARK.name not in inspect(moved.engine).get_table_names()
    assert every_row(db.engine) == before, "the old catalog stays as it was"


def test_a_moment_is_the_same_moment_in_another_time_zone(db, target):
    with db.session() as session:
        made = session.scalars(select(Source.created_at).order_by(Source.id)).first()
    copy_catalog(db.path, target)
    with closing(mlipdb.open(db.path)) as moved, moved.session() as session:
        found = session.scalars(select(Source.created_at).order_by(Source.id)).first()
    assert found.replace(tzinfo=found.tzinfo or UTC) == made.replace(tzinfo=made.tzinfo or UTC)


def test_a_program_that_had_the_database_open_cannot_write_to_the_old_catalog(db, target):
    copy_catalog(db.path, target)
    with pytest.raises(CatalogError, match="was moved"):
        append(db, 40)


def test_nothing_is_moved_while_somebody_writes(db, target):
    with WriterLock(db.path / "ingest.lock"), pytest.raises(LockedError):
        copy_catalog(db.path, target)
    with db.write(), pytest.raises(LockedError):
        copy_catalog(db.path, target)


def test_a_target_that_holds_something_else_is_refused(db, target, tmp_path):
    copy_catalog(db.path, target)
    other = mlipdb.create(tmp_path / "other", catalog="catalog.sqlite")
    if target == "moved.sqlite":
        (other.path / target).write_bytes((db.path / target).read_bytes())
    with pytest.raises(CatalogError, match="no broken-off copy"):
        copy_catalog(other.path, target)
    assert read_manifest(other.path).catalog == "catalog.sqlite"
    with pytest.raises(CatalogError, match="catalog already"):
        copy_catalog(db.path, target)
    other.close()


@pytest.mark.parametrize("place", ["mysql://host/name", "../elsewhere.sqlite", "catalog"])
def test_a_place_that_no_catalog_can_have_is_refused(tmp_path, place):
    with closing(mlipdb.create(tmp_path / "db", catalog="catalog.sqlite")) as db, pytest.raises(CatalogError):
        copy_catalog(db.path, place)


def test_a_server_that_is_not_there_leaves_the_database_as_it_was(tmp_path):
    with closing(mlipdb.create(tmp_path / "db", catalog="catalog.sqlite")) as db:
        with pytest.raises(CatalogError, match="is the server running"):
            copy_catalog(db.path, f"postgresql+psycopg://mlipdb@/name?host={tmp_path}")
        assert read_manifest(db.path).catalog == "catalog.sqlite"


def test_what_the_target_cannot_hold_is_an_error_and_the_old_catalog_stays(tmp_path, postgresql_url):
    """SQLite does not hold texts to their length."""
    with closing(mlipdb.create(tmp_path / "db", catalog="catalog.sqlite")) as db:
        append(db, 0)
        with db.engine.begin() as connection:
            connection.execute(text("UPDATE structure SET chemical_system = :long WHERE id = 3"), {"long": "x" * 300})
        with pytest.raises(CatalogError, match="still has its old catalog"):
            copy_catalog(db.path, postgresql_url)
        with db.engine.begin() as connection:
            connection.execute(text("UPDATE structure SET chemical_system = 'short' WHERE id = 3"))
        assert copy_catalog(db.path, postgresql_url).rows["structure"] == 40


@pytest.mark.slow
def test_a_copy_killed_at_any_point_leaves_the_old_catalog_and_the_next_completes_it(db, target):
    old, before = read_manifest(db.path).catalog, every_row(db.engine)
    kills, delay = 0, 0.0
    while run_and_kill(["-c", PROGRAM, str(db.path), target], after=delay, ready="ready"):
        kills, delay = kills + 1, delay * 1.25 + 0.02
        now = read_manifest(db.path).catalog
        with closing(mlipdb.open(db.path)) as database:
            assert every_row(database.engine) == before
        if now == target:
            break
        assert now == old
    assert kills > 3
    if read_manifest(db.path).catalog == old:
        copy_catalog(db.path, target)
    with closing(mlipdb.open(db.path)) as moved:
        assert moved.engine.dialect.name != db.engine.dialect.name
        assert every_row(moved.engine) == before
        assert append(moved, 40) == list(range(41, 81))


def test_a_url_shows_no_password(tmp_path):
    with closing(mlipdb.create(tmp_path / "db", catalog="catalog.sqlite")) as db:
        with pytest.raises(CatalogError) as caught:
            copy_catalog(db.path, f"postgresql+psycopg://mlipdb:secret@/name?host={tmp_path}")
        assert "secret" not in str(caught.value)


def test_the_sum_of_a_table_tells_rows_apart():
    rows = [(1, "a", {"x": 1, "y": 2.5}), (2, "b", None)]
    assert _sum(iter(rows)) == _sum(iter([rows[1], (1, "a", {"y": 2.5, "x": 1})]))
    assert _sum(iter(rows)) != _sum(iter([rows[0], (2, "c", None)]))
