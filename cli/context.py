"""Which database a command works on, and how commands print."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

if TYPE_CHECKING:
    from mlipdb.database import Database

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of text.")]


def database_path(context: typer.Context) -> Path:
    """--db, else $MLIPDB_DB, else ./mlipdb-data."""
    chosen = context.find_root().params.get("db")
    return Path(chosen or os.environ.get("MLIPDB_DB") or "mlipdb-data")


def open_database(context: typer.Context) -> "Database":
    """The database of this command; CatalogError when there is none."""
    import mlipdb

    return _closed_at_end(context, mlipdb.open(database_path(context)))


def create_database(context: typer.Context) -> "Database":
    """The database of this command, made when there is none."""
    import mlipdb

    return _closed_at_end(context, mlipdb.create(database_path(context)))


def _closed_at_end(context: typer.Context, database: "Database") -> "Database":
    """A database whose connections and lock go with the command, also where another follows in this process."""
    context.call_on_close(database.close)
    return database


def show_json(value: Any) -> None:
    """Print a value as one line of JSON on stdout."""
    print(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS, default=str).decode())


def talk(text: str) -> None:
    """Print a line for people on stderr, so that stdout holds data only."""
    typer.echo(text, err=True)
