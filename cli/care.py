"""Commands that look after a database: verify, gc and the schema."""

from typing import Annotated

import typer

from mlipdb.cli.context import JsonOption, database_path, open_database, show_json, talk

db_app = typer.Typer(help="The catalog itself: make it, check it, bring it up to date.", no_args_is_help=True)


def verify(
    context: typer.Context,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every record as well.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare every shard with the catalog and report differences; exit 1 when something is wrong."""
    report = open_database(context).verify(deep=deep)
    if json:
        show_json({"ok": report.ok, **vars(report)})
    else:
        for problem in report.problems:
            print(f"problem: {problem}")
        for orphan in report.orphans:
            print(f"leftover of a crash: {orphan} (`mlipdb gc` removes it)")
        print(f"{report.shards} shards, {report.records} records: {'all well' if report.ok else 'NOT well'}")
    raise typer.Exit(0 if report.ok else 1)


def gc(context: typer.Context, json: JsonOption = False) -> None:
    """Remove files in shards/ that no row of the catalog names: what a crash left behind."""
    report = open_database(context).gc()
    if json:
        show_json(vars(report))
        return
    for name in report.removed:
        print(f"removed {name}")
    print(f"{len(report.removed)} leftovers removed, {report.shards} shards kept")


@db_app.command()
def create(
    context: typer.Context,
    catalog: Annotated[
        str, typer.Option(help="catalog.sqlite, or a URL such as postgresql+psycopg://host/name.")
    ] = "catalog.sqlite",
) -> None:
    """Make a database; only needed for a catalog in PostgreSQL, since the first ingest makes one in SQLite."""
    import mlipdb

    database = mlipdb.create(database_path(context), catalog=catalog)
    print(f"{database.path}: database {database.uuid}, catalog in {database.engine.dialect.name}")


@db_app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the catalog to the schema of this mlipdb."""
    from mlipdb.catalog.schema import current_revision, upgrade_directory

    engine = upgrade_directory(database_path(context))
    print(f"{database_path(context)}: schema {current_revision(engine)}")


@db_app.command()
def current(context: typer.Context, json: JsonOption = False) -> None:
    """Print the catalog's schema revision and the newest one."""
    from mlipdb.catalog.schema import catalog_engine, current_revision, head_revision

    found, newest = current_revision(catalog_engine(database_path(context))), head_revision()
    if json:
        show_json({"current": found, "newest": newest})
    else:
        print(f"schema {found}, newest {newest}")


@db_app.command()
def check(context: typer.Context) -> None:
    """Exit 1 with the command to run when the catalog's schema is not the newest."""
    open_database(context)
    talk("the schema is the newest")


@db_app.command()
def history(json: JsonOption = False) -> None:
    """List every schema revision, oldest first."""
    from mlipdb.catalog.schema import history as revisions

    if json:
        show_json([{"revision": revision, "subject": subject} for revision, subject in revisions()])
        return
    for revision, subject in revisions():
        print(f"{revision}  {subject}")
