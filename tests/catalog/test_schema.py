"""The migrations make the schema of the models, up and down, with rows in every table."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

import mlipdb
from mlipdb.catalog import Base, schema
from mlipdb.catalog.engine import make_engine
from mlipdb.errors import CatalogError


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    catalog = "catalog.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    engine = make_engine(tmp_path, catalog)
    yield engine
    engine.dispose()


def test_there_is_one_head():
    assert len(ScriptDirectory.from_config(schema.migration_config()).get_heads()) == 1


def test_migrations_and_models_agree(engine):
    schema.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_every_step_goes_up_down_and_up_with_rows_in_every_table(engine, fill_every_table):
    for revision, _ in schema.history():
        before = schema.current_revision(engine)
        schema.upgrade(engine, revision)
        fill_every_table(engine)
        schema.downgrade(engine, before or "base")
        schema.upgrade(engine, revision)
    assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())


def test_an_old_catalog_is_refused_with_the_command_that_upgrades_it(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    with db.engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    with pytest.raises(CatalogError, match="db upgrade"):
        mlipdb.open(db.path)


def test_a_catalog_from_the_future_is_refused(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    with db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(CatalogError, match="newer"):
        mlipdb.open(db.path)


def test_a_commit_is_on_disk_before_it_returns_and_keys_are_enforced(tmp_path):
    engine = make_engine(tmp_path, "catalog.sqlite")
    with engine.connect() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("synchronous", "foreign_keys")
        }
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    assert pragmas == {"synchronous": 2, "foreign_keys": 1}
