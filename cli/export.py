"""`mlipdb export`: write a subset with its labels to a file that other programs open."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.export import ExportReport


def export(
    context: typer.Context,
    format: Annotated[
        str,
        typer.Argument(metavar="FORMAT", help="extxyz, aselmdb, asedb, mace-hdf5, colabfit, phonopy, or a plug-in's."),
    ],
    selection: Annotated[str, typer.Argument(metavar="SUBSET", help="A frozen subset's name or any filter.")],
    to: Annotated[Path, typer.Option(metavar="PATH", help="The file or folder to write.")],
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Whose labels; the first has the standard names.")
    ] = None,
    energy: Annotated[
        str | None, typer.Option(metavar="KIND", help="The energy: uncorrected, corrected, free or zero.")
    ] = None,
    split: Annotated[bool, typer.Option("--split", help="One file for each part of the subset's split.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    json: JsonOption = False,
) -> None:
    """Write structures and labels to another format; what it cannot hold is said."""
    from mlipdb.export import export

    db = open_database(context)
    reports = export(
        db, selection, format=format, path=to, methods=method or [], energy=energy, split=split, force=force
    )
    if json:
        show_json({"format": format, "files": [asdict(report) for report in reports]})
        return
    for report in reports:
        _print_report(report)


def _print_report(report: "ExportReport") -> None:
    energy = f"energy is {report.energy}" if report.energy else "no energies"
    print(f"{report.path}: {report.written} structures, {report.bytes} bytes; {', '.join(report.methods)}; {energy}")
    for name in report.beside:
        print(f"  beside it: {name}")
    for skipped in report.skipped:
        shown = ", ".join(skipped.examples)
        talk(f"  not written: {skipped.structures} structures ({shown}, …): {skipped.reason}")
    for lost in report.lost:
        talk(f"  lost: {lost.what} of {lost.structures} structures: {lost.why}")
