"""`mlipdb evaluate`."""

from typing import Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk


def evaluate(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run, a checkpoint folder or a .nqx file.")],
    subset: Annotated[str, typer.Option(help="A frozen subset or a filter, which is frozen first.")],
    split: Annotated[
        list[str] | None, typer.Option(help="train, validation or test; repeatable; all if absent.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Errors of energies, forces and stress on the parts of a subset, beside those of E0 alone."""
    from mlipdb.trainers.evaluate import evaluate as compare
    from mlipdb.trainers.evaluate import table

    found = compare(open_database(context), target, subset=subset, splits=tuple(split) if split else None)
    if json:
        show_json({"run": found.name, "target": found.target, "energy": found.energy, "rows": found.rows})
    else:
        talk(f"{found.target} on {found.subset}, {found.energy}; kept as run {found.name}")
        print(table(found))
