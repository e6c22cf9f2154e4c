"""Commands that look after a database: verify, repair and gc."""

from typing import Annotated

import typer

from mlipdb.cli.context import JsonOption, database_path, open_database, show_json, talk


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


def repair(context: typer.Context, json: JsonOption = False) -> None:
    """Make the catalog good again from the shards where it is lost, damaged or behind; the old one is kept."""
    from mlipdb.repair import repair as repair_directory

    report = repair_directory(database_path(context))
    if json:
        show_json(vars(report))
        return
    for loss in report.losses:
        talk(f"lost: {loss}")
    for reason in report.ignored:
        talk(f"not taken: {reason}")
    print(f"{report.structures} structures and {report.labels} labels added from {report.shards} shards")
    if report.facets:
        print(f"packed columns (facets) of {report.facets} shards made again")
    if report.kept:
        print(f"the old catalog is kept as {report.kept}")


def gc(context: typer.Context, json: JsonOption = False) -> None:
    """Remove files in shards/ that no row of the catalog names: what a crash left behind."""
    report = open_database(context).gc()
    if json:
        show_json(vars(report))
        return
    for name in report.removed:
        print(f"removed {name}")
    print(f"{len(report.removed)} leftovers removed, {report.shards} shards kept")
