"""The command `query`: which structures match a filter."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.query import Answer, StructureSummary

SCREENFUL = 20
HEADINGS = ("id", "external id", "formula", "space group", "sites", "energy (eV)", "gap (eV)")
NUMERIC = {"id", "sites", "energy (eV)", "gap (eV)"}


def query(
    context: typer.Context,
    filter: Annotated[str, typer.Argument(help="Such as: Y AND gap>=5. See docs/queries.md.")] = "all",
    count: Annotated[bool, typer.Option("--count", help="Print the number of structures only.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="Print at most this many, 0 for all (20 as text, all with --json)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the structures that match a filter, by ascending id."""
    from mlipdb.query import summarise

    wanted = 0 if count else _limit(limit, json=json)
    database = open_database(context)
    with database.session() as session:
        answer = summarise(session, filter, limit=wanted)
    if json:
        show_json(_plain(answer, count=count))
    elif count:
        print(answer.count)
    else:
        print_table(answer)


def _limit(limit: int | None, *, json: bool) -> int | None:
    if limit is None:
        return None if json else SCREENFUL
    return limit or None


def _plain(answer: "Answer", *, count: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"filter": answer.filter, "count": answer.count}
    return facts if count else facts | {"structures": [asdict(structure) for structure in answer.structures]}


def print_table(answer: "Answer") -> None:
    """Aligned columns on stdout; what is left out, on stderr."""
    rows = [HEADINGS, *(_cells(structure) for structure in answer.structures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows if answer.structures else []:
        cells = zip(HEADINGS, row, widths, strict=True)
        print(
            "  ".join(
                cell.rjust(width) if name in NUMERIC else cell.ljust(width) for name, cell, width in cells
            ).rstrip()
        )
    shown = len(answer.structures)
    rest = f", the first {shown} shown; --limit 0 shows all" if shown < answer.count else ""
    talk(f"{answer.count:,} structure{'' if answer.count == 1 else 's'}{rest}")


def _cells(structure: "StructureSummary") -> tuple[str, ...]:
    group = "" if structure.space_group_symbol is None else structure.space_group_symbol
    number = "" if structure.space_group_it_number is None else f" ({structure.space_group_it_number})"
    return (
        str(structure.id),
        structure.external_id,
        structure.chemical_formula_reduced,
        group + number,
        str(structure.nsites),
        "" if structure.energy is None else f"{structure.energy:.6f}",
        "" if structure.band_gap is None else f"{structure.band_gap:.4f}",
    )
