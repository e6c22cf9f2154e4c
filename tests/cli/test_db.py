"""The commands `db …`, in this process."""

import json

import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

import mlipdb
from mlipdb.cli.app import app
from mlipdb.errors import CatalogError
from mlipdb.manifest import read_manifest
from mlipdb.testing.samples import sample_records


def run(path, *words):
    return CliRunner().invoke(app, ["--db", str(path), "db", *words])


@pytest.fixture
def path(tmp_path):
    """A database of three structures with its catalog in SQLite."""
    db = mlipdb.create(tmp_path / "db", catalog="catalog.sqlite")
    db.append(sample_records(3), source_id=db.open_source("made", reader="none", uri="-"))
    db.close()
    return db.path


def test_copy_says_what_it_did_and_where_the_old_catalog_is(path):
    done = run(path, "copy", "moved.sqlite")
    assert done.exit_code == 0, done.output
    assert "the catalog is now moved.sqlite" in done.output
    assert "no longer used: catalog.sqlite" in done.output
    assert run(path, "copy", "back.sqlite", "--json").exit_code == 0
    assert len(mlipdb.open(path).query("all")) == 3


def test_copy_prints_the_rows_of_each_table_as_json(path):
    report = json.loads(run(path, "copy", "moved.sqlite", "--json").stdout)
    assert (report["old"], report["new"]) == ("catalog.sqlite", "moved.sqlite")
    assert report["rows"]["structure"] == 3


def test_copy_to_where_the_catalog_is_already_fails(path):
    done = run(path, "copy", "catalog.sqlite")
    assert isinstance(done.exception, CatalogError)


def test_create_makes_the_postgresql_database_that_is_missing(tmp_path, postgresql_url):
    url = make_url(postgresql_url)
    wanted = url.set(database=f"{url.database}_new").render_as_string(hide_password=False)
    done = run(tmp_path / "db", "create", "--catalog", wanted)
    assert done.exit_code == 0, done.output
    assert "catalog in postgresql" in done.output
    assert read_manifest(tmp_path / "db").catalog == wanted


def test_a_new_database_has_its_catalog_where_the_environment_says(tmp_path, postgresql_url, monkeypatch):
    pattern = postgresql_url.replace("test_", "new_{id}_")
    monkeypatch.setenv("MLIPDB_CATALOG", pattern)
    one, other = mlipdb.create(tmp_path / "one"), mlipdb.create(tmp_path / "other")
    assert one.engine.dialect.name == other.engine.dialect.name == "postgresql"
    assert one.engine.url != other.engine.url
    one.close()
    other.close()


def test_one_catalog_for_every_new_database_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MLIPDB_CATALOG", "postgresql+psycopg://host/name")
    with pytest.raises(CatalogError, match=r"put \{id\} into it"):
        mlipdb.create(tmp_path / "db")


def test_two_directories_cannot_share_a_catalog(tmp_path, postgresql_url):
    db = mlipdb.create(tmp_path / "db", catalog=postgresql_url)
    db.append(sample_records(3), source_id=db.open_source("made", reader="none", uri="-"))
    db.close()
    with pytest.raises(CatalogError, match="in use by database"):
        mlipdb.create(tmp_path / "other", catalog=postgresql_url)


def test_a_command_leaves_no_connection_open(path, monkeypatch):
    opened, really = [], mlipdb.open
    monkeypatch.setattr(mlipdb, "open", lambda place: opened.append(really(place)) or opened[-1])
    assert CliRunner().invoke(app, ["--db", str(path), "query", "all", "--count"]).exit_code == 0
    assert [database.engine.pool.checkedin() for database in opened] == [0]
    opened[0].query("all")
    assert opened[0].engine.pool.checkedin() == 1
    opened[0].close()
