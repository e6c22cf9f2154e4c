"""The command `report`: a run on one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk


def report(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="RUN", help="A training that `mlipdb runs list` names.")],
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The HTML file; default: report.html in the run's folder.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Part of its subset to predict; default: test, else validation, else train.")
    ] = None,
    sample: Annotated[int, typer.Option(min=0, help="Structures of that part that are predicted, 0 for all.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Which structures these are.")] = 0,
    json: JsonOption = False,
) -> None:
    """Write one HTML file: learning curves, parity, errors by element and space group, worst structures, provenance."""
    from mlipdb.trainers.report import gather_report, write_report

    found = gather_report(open_database(context), name, part=split, sample=sample, seed=seed)
    if to or not json:
        path = to or (found.run.path or Path()) / "report.html"
        write_report(path, found)
        talk(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB): {len(found.predictions)} structures of {found.part}")
    if json:
        show_json(found.describe())
    else:
        print(path)
