"""`mlipdb generate`: structures made of stored ones, dimers, trimers, random crystals."""

from typing import Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk


def generate(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="rattled, strained, compressed, dimers, trimers or crystals.")],
    count: Annotated[int, typer.Option(min=1, help="How many; a larger number adds to those that are there.")],
    name: Annotated[str, typer.Option(help="What to call the source that they become.")],
    source: Annotated[
        str | None, typer.Option("--from", help="A frozen subset (its train part) or a filter: what they are made of.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed makes others.")] = 0,
    elements: Annotated[
        str | None, typer.Option(help="Of dimers, trimers and crystals, as in 'Na Cl'; default: those of --from.")
    ] = None,
    sigma: Annotated[float, typer.Option(help="rattled: width of each displacement in Å.")] = 0.1,
    strain: Annotated[float, typer.Option(help="strained: the largest component.")] = 0.05,
    nearest: Annotated[
        float,
        typer.Option(help="compressed, dimers, trimers: shortest distance over the sum of covalent radii, at least."),
    ] = 0.5,
    farthest: Annotated[float, typer.Option(help="compressed, dimers, trimers: the same, at most.")] = 1.0,
    box: Annotated[float, typer.Option(help="dimers, trimers: edge of the cube round each in Å.")] = 20.0,
    atoms: Annotated[int, typer.Option(min=1, help="crystals: atoms in a cell, at most.")] = 12,
    json: JsonOption = False,
) -> None:
    """Make structures without labels, as a source of their own. Repeating it adds nothing."""
    from mlipdb.generate import Making
    from mlipdb.generate import generate as make
    from mlipdb.structures import parse_elements

    numbers = parse_elements(elements or "")
    ways = {"sigma": sigma, "strain": strain, "nearest": nearest, "farthest": farthest, "box": box}
    making = Making(kind=kind, count=count, seed=seed, elements=numbers, atoms=atoms, **ways)
    found = make(open_database(context), making, name=name, source=source)
    if json:
        show_json({"source": found.source, "structures": found.structures, "fresh": found.fresh})
        return
    talk(f"{found.fresh} made, {found.structures} in source {found.source}, without labels")
    talk(f"next: mlipdb label --teacher … --subset 'source=\"{found.source}\"'")
    print(found.source)
