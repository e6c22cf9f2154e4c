"""The commands `db …`: the catalog itself, its schema and its place."""

from typing import Annotated

import typer

from mlipdb.cli.context import JsonOption, database_path, open_database, show_json, talk

app = typer.Typer(help="The catalog itself: make it, check it, bring it up to date, move it.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    catalog: Annotated[
        str | None,
        typer.Option(help="catalog.sqlite, or a URL such as postgresql+psycopg://host/name; else $MLIPDB_CATALOG."),
    ] = None,
) -> None:
    """Make a database; only needed for a catalog in PostgreSQL, since the first ingest makes one in SQLite."""
    import mlipdb

    database = mlipdb.create(database_path(context), catalog=catalog)
    print(f"{database.path}: database {database.uuid}, catalog in {database.engine.dialect.name}")
    database.close()


@app.command()
def copy(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(help="A URL such as postgresql+psycopg://host/name, or the name of a new .sqlite file.")
    ],
    json: JsonOption = False,
) -> None:
    """Move the catalog to PostgreSQL or back: copy, compare, then use the copy. The old catalog stays where it is."""
    from mlipdb.catalog.copy import copy_catalog

    report = copy_catalog(database_path(context), target, progress=None if json else _say)
    if json:
        show_json(vars(report))
        return
    print(f"{sum(report.rows.values())} rows copied and compared; the catalog is now {report.new}")
    print(f"the old one is still there and no longer used: {report.old}")


def _say(table: str, rows: int) -> None:
    if rows:
        talk(f"{table}: {rows}")


@app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the catalog to the schema of this mlipdb."""
    from mlipdb.catalog.schema import current_revision, upgrade_directory

    engine = upgrade_directory(database_path(context))
    context.call_on_close(engine.dispose)
    print(f"{database_path(context)}: schema {current_revision(engine)}")


@app.command()
def current(context: typer.Context, json: JsonOption = False) -> None:
    """Print the catalog's schema revision and the newest one."""
    from mlipdb.catalog.schema import catalog_engine, current_revision, head_revision

    engine = catalog_engine(database_path(context))
    context.call_on_close(engine.dispose)
    found, newest = current_revision(engine), head_revision()
    if json:
        show_json({"current": found, "newest": newest})
    else:
        print(f"schema {found}, newest {newest}")


@app.command()
def check(context: typer.Context) -> None:
    """Exit 1 with the command to run when the catalog's schema is not the newest."""
    open_database(context)
    talk("the schema is the newest")


@app.command()
def history(json: JsonOption = False) -> None:
    """List every schema revision, oldest first."""
    from mlipdb.catalog.schema import history as revisions

    if json:
        show_json([{"revision": revision, "subject": subject} for revision, subject in revisions()])
        return
    for revision, subject in revisions():
        print(f"{revision}  {subject}")
