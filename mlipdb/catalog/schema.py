"""The catalog's schema version: make, check and upgrade it with the migrations."""

from pathlib import Path
from uuid import uuid4

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

import mlipdb.migrations
from mlipdb.catalog.engine import make_engine
from mlipdb.catalog.facets import fill_facets
from mlipdb.catalog.info import CatalogInfo
from mlipdb.catalog.rows import now
from mlipdb.catalog.shard import ShardRow
from mlipdb.errors import CatalogError
from mlipdb.manifest import read_manifest
from mlipdb.store.lock import WriterLock
from mlipdb.version import __version__


def migration_config() -> Config:
    """Alembic's configuration for the installed migrations; the editable install hides them from `module:folder`."""
    config = Config()
    config.set_main_option("script_location", str(Path(mlipdb.migrations.__file__ or "").parent))
    return config


def head_revision() -> str:
    """The newest revision that this mlipdb knows."""
    return str(ScriptDirectory.from_config(migration_config()).get_current_head())


def current_revision(engine: Engine) -> str | None:
    """The revision of a catalog, None for an empty one."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring a catalog to a revision; one transaction for each step."""
    config = migration_config()
    config.attributes["engine"] = engine
    command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Take a catalog back to a revision."""
    config = migration_config()
    config.attributes["engine"] = engine
    command.downgrade(config, revision)


def history() -> list[tuple[str, str]]:
    """Every revision with its subject, oldest first."""
    revisions = ScriptDirectory.from_config(migration_config()).walk_revisions()
    return [(revision.revision, revision.doc or "") for revision in revisions][::-1]


def check_revision(engine: Engine, *, place: Path) -> None:
    """Raise CatalogError unless the catalog has the schema that this mlipdb reads and writes."""
    found, wanted = current_revision(engine), head_revision()
    if found == wanted:
        return
    known = {revision for revision, _ in history()}
    if found is None or found in known:
        raise CatalogError(
            f"{place}: the catalog has schema {found}, this mlipdb needs {wanted}; run `mlipdb --db {place} db upgrade`"
        )
    raise CatalogError(
        f"{place}: the catalog has schema {found}, newer than this mlipdb knows ({wanted}); upgrade mlipdb"
    )


def make_catalog(engine: Engine, directory: Path) -> str:
    """The tables and the identity of a new catalog, its UUID; a crash before the manifest may have left both."""
    upgrade(engine)
    with Session(engine) as session, session.begin():
        uuid = session.scalar(select(CatalogInfo.uuid))
        if uuid is None:
            uuid = str(uuid4())
            session.add(CatalogInfo(uuid=uuid, created_with=__version__, created_at=now()))
        elif session.scalar(select(ShardRow.id).limit(1)):
            raise CatalogError(
                f"{directory}: this catalog is in use by database {uuid}, whose shards are elsewhere; name another "
                "catalog, or the directory of that database"
            )
        return uuid


def catalog_engine(directory: Path) -> Engine:
    """An engine for the catalog of a database directory, whatever its schema."""
    return make_engine(directory, read_manifest(directory).catalog)


def upgrade_directory(directory: Path) -> Engine:
    """Bring the catalog of a database directory to the newest schema, with the writer's lock held.

    Facets are made shard by shard, each in a transaction of its own; queries do without those that are missing.
    """
    engine = catalog_engine(directory)
    with WriterLock(directory / "lock"):
        upgrade(engine)
        more = True
        while more:
            with Session(engine) as session, session.begin():
                more = bool(fill_facets(session, at_most=1))
    return engine
