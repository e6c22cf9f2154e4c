"""The commands `bundle make` and `bundle take`: a subset in one file, from one database to another."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mlipdb.cli.context import JsonOption, create_database, open_database, show_json

app = typer.Typer(help="One file that carries a frozen subset to another database.", no_args_is_help=True)


@app.command()
def make(
    context: typer.Context,
    subset: Annotated[str, typer.Argument(metavar="SUBSET", help="Name of a frozen subset.")],
    to: Annotated[Path, typer.Option(metavar="FILE", help="The file to write, such as yttrium.mlipdb.")],
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Whose labels go along; default: everyone's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a frozen subset, with labels, sources, methods and its split, to one file under a hash."""
    from mlipdb.export import make_bundle

    report = make_bundle(open_database(context), subset, path=to, methods=method or [], force=force)
    if json:
        show_json(asdict(report))
        return
    print(f"{report.path}: {report.structures} structures, {report.labels} added labels, {report.bytes} bytes")
    print(f"  subset   {report.subset}, hash {report.subset_hash}")
    print(f"  sources  {', '.join(report.sources)}")
    print(f"  methods  {', '.join(report.methods)}")
    print(f"  sha256   {report.sha256}")


@app.command()
def take(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A bundle.")],
    json: JsonOption = False,
) -> None:
    """Take a bundle in, after every check; taking it twice is the same as once."""
    from mlipdb.export import open_bundle, take_bundle

    with open_bundle(file) as bundle:
        report = take_bundle(create_database(context), bundle)
    if json:
        show_json(asdict(report))
        return
    print(f"{report.path}: {report.structures} structures taken, {report.structures_known} were here")
    print(f"  labels   {report.labels} added, {report.labels_known} were here")
    print(f"  subset   {report.subset}, hash {report.subset_hash}")
