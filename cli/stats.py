"""The command `stats`: what the database holds, in numbers, histograms and plots."""

from pathlib import Path
from typing import Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk


def stats(
    context: typer.Context,
    filter: Annotated[str, typer.Argument(help="Such as: Y AND gap>=5. See docs/queries.md.")] = "all",
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one HTML file with plots as well.")] = None,
    parity: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="METHOD METHOD", help="Compare two sets of labels, by the number or name of a method."),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=0, help="Structures of each method whose forces are read, 0 for none.")
    ] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Which structures these are.")] = 0,
    json: JsonOption = False,
) -> None:
    """Count what a filter matches: elements, sizes, space groups, energies, forces, and who labelled what."""
    from mlipdb.cli.stats_text import print_parity, print_statistics
    from mlipdb.stats import check_plots, compare_methods, statistics, write_page

    if html:
        check_plots()
    database = open_database(context)
    found = statistics(database, filter, sample=sample, seed=seed)
    compared = compare_methods(database, *parity, filter=filter, sample=sample, seed=seed) if parity else None
    if html:
        write_page(html, found, parity=compared)
        talk(f"wrote {html} ({html.stat().st_size / 1e6:.1f} MB)")
    if json:
        show_json(found.describe() | ({"parity": compared.describe()} if compared else {}))
        return
    print_statistics(found)
    if compared:
        print_parity(compared)
