"""`mlipdb evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.trainers.evaluate import Evaluation
    from mlipdb.trainers.forgetting import Forgetting


def evaluate(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="RUN|CHECKPOINT", help="A run, a checkpoint folder or a .nqx file; @HEAD after it.")
    ],
    subset: Annotated[str, typer.Option(help="A frozen subset or a filter, which is frozen first.")],
    split: Annotated[
        list[str] | None, typer.Option(help="train, validation or test; repeatable; all if absent.")
    ] = None,
    forgetting: Annotated[
        bool, typer.Option("--forgetting", help="Compare with the foundation: what it knew, short range, dynamics.")
    ] = False,
    foundation_subset: Annotated[
        str | None, typer.Option(help="What the foundation learnt; default: the run's replay set.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="The foundation; default: the run's.")] = None,
    elements: Annotated[
        str | None, typer.Option(help="Pairs to bring together, as in 'Na Cl O'; default: all.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Structures of each subset asked for forgetting.")] = 200,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the comparison as one HTML page.")] = None,
    json: JsonOption = False,
) -> None:
    """Errors on the parts of a subset, beside those of E0 alone; with --forgetting also what fine-tuning has cost."""
    from mlipdb.trainers.evaluate import evaluate as compare

    if not forgetting and (foundation_subset or against or elements or html):
        raise typer.BadParameter("--foundation-subset, --against, --elements and --html go with --forgetting")
    db = open_database(context)
    sets = {"foundation_subset": foundation_subset, "against": against}
    if forgetting:
        from mlipdb.trainers.forgetting import check_forgetting

        check_forgetting(db, target, **sets)  # before an evaluation that takes its time
    found = compare(db, target, subset=subset, splits=tuple(split) if split else None)
    forgotten = None
    if forgetting:
        from mlipdb.structures import parse_elements
        from mlipdb.trainers.forgetting import Extent, add_forgetting, write_page

        extent = Extent(sample=sample, elements=parse_elements(elements or ""))
        forgotten = add_forgetting(db, found, target=target, extent=extent, **sets)
        if html is not None:
            write_page(html, forgotten)
    _show(found, forgotten, json=json)


def _show(found: "Evaluation", forgotten: "Forgetting | None", *, json: bool) -> None:
    from mlipdb.trainers.evaluate import table

    if json:
        told = {"run": found.name, "target": found.target, "energy": found.energy, "rows": found.rows}
        show_json(told if forgotten is None else {**told, "forgetting": forgotten.describe()})
        return
    talk(f"{found.target} on {found.subset}, {found.energy}; kept as run {found.name}")
    print(table(found))
    if forgotten is not None:
        from mlipdb.trainers.forgetting import table as comparison

        print(f"\n{comparison(forgotten)}")
