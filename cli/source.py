"""`mlipdb source`: published data sets and those of the database."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, database_path, open_database, show_json

if TYPE_CHECKING:
    from mlipdb.database import Database

SHOWN = 10  # files of a source in text; --json has them all

app = typer.Typer(help="Published data sets, and what this database has of them.", no_args_is_help=True)


@app.command("list")
def list_command(context: typer.Context, json: JsonOption = False) -> None:
    """Name the published sources and those of the database."""
    from mlipdb.ingest import list_sources

    found = list_sources(_database_if_any(context))
    if json:
        show_json(found)
        return
    width = max(len(item["name"]) for item in found)
    for item in found:
        have = item["ingested"]
        state = f"{have['structures']} structures, {have['state']}" if have else ""
        print(f"{item['name']:{width}s}  {item['reader']:10s}  {state or item['title']}")


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a source.")],
    json: JsonOption = False,
) -> None:
    """Tell everything known of a source: origin, licence, level of theory, files, counts, findings."""
    from mlipdb.ingest import describe_source

    facts = describe_source(_database_if_any(context), name)
    if json:
        show_json(facts)
        return
    print(name)
    if facts["published"]:
        _show_published(facts["published"])
    if facts["ingested"]:
        _show_ingested(facts["ingested"])
    else:
        print(f"  not in this database; mlipdb ingest {name}{'' if facts['published']['fetchable'] else ' PATH'}")


def _database_if_any(context: typer.Context) -> "Database | None":
    return open_database(context) if (database_path(context) / "mlipdb.toml").exists() else None


def _show_published(source: dict[str, Any]) -> None:
    rows = [(key, source[key]) for key in ("title", "version", "theory", "address", "licence", "citation", "frames")]
    rows += [
        ("size", source["about"]),
        ("reader", source["reader"]),
        ("account", "needed" if source["login"] else None),
    ]
    rows += [("then", source["unpack"]), *(("note", note) for note in source["notes"])]
    _rows(rows)
    for file in source["files"][:SHOWN]:
        size = f"  {file['bytes']} bytes" if file["bytes"] else ""
        digest = f"  md5 {file['md5']}" if file["md5"] else f"  sha256 {file['sha256']}" if file["sha256"] else ""
        print(f"  file      {file['url']}{size}{digest}")
    _more(len(source["files"]))


def _show_ingested(source: dict[str, Any]) -> None:
    print(f"  in this database: {source['structures']} structures, {source['state']} ({source['ingested_at'][:10]})")
    _rows([("duplicates", source["duplicates"]), ("quarantine", source["quarantined"]), ("from", source["uri"])])
    _rows([("copies", f"{copies['frames']} of {copies['of']}, left out") for copies in source["copies"]])
    _rows([(key, source[key]) for key in ("reader", "version", "licence", "citation", "sha256")])
    for method in source["methods"]:
        print(f"  method    {method['name']}: {method['labels']} labels")
    for file in source["files"][:SHOWN]:
        state = "whole" if file["complete"] else "not read to its end"
        print(f"  file      {file['name']}: {file['records']} records, {file['quarantined']} quarantined, {state}")
    _more(len(source["files"]))
    for finding in source["findings"]:
        print(f"  {finding['severity']:8s}  {finding['check']}: {finding['message']}")
    if not source["findings"]:
        print("  findings  none")


def _rows(rows: list[tuple[str, Any]]) -> None:
    for key, value in rows:
        if value is not None:
            print(f"  {key:8s}  {value}")


def _more(count: int) -> None:
    if count > SHOWN:
        print(f"  … and {count - SHOWN} more files; --json lists them")
