"""Run migrations on the engine that mlipdb hands over, or on the URL of alembic.ini (developers only)."""

from alembic import context
from sqlalchemy import Connection, create_engine

from mlipdb.catalog import Base


def run(connection: Connection) -> None:
    """Run every pending step, each in its own transaction; SQLite changes tables by copying them."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


engine = context.config.attributes.get("engine")
if engine is None:
    engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "sqlite://")
with engine.connect() as connection:
    run(connection)
