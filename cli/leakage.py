"""The commands `leakage` and `fingerprint`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.subsets.leakage import Overlap

WorkersOption = Annotated[int | None, typer.Option(help="Processes; by default one per core, 0 for none.")]


def leakage(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="Name of a frozen subset, or a filter.")],
    second: Annotated[str | None, typer.Argument(metavar="[B]", help="Another; without it, the parts of A.")] = None,
    by: Annotated[str, typer.Option(help="What counts as shared.")] = "material,content,fingerprint",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when anything is shared.")] = False,
    fail_above: Annotated[
        float | None, typer.Option(help="Exit with 1 when more than these percent of B are shared.")
    ] = None,
    workers: WorkersOption = None,
    json: JsonOption = False,
) -> None:
    """Say what two subsets share, or train and test of one: materials, equal contents, equal crystals."""
    from mlipdb.subsets.leakage import leakage

    measures = [measure.strip() for measure in by.split(",")]
    report = leakage(open_database(context), first, second, measures=measures, workers=workers, progress=_progress)
    if json:
        show_json(report.describe())
    else:
        for overlap in report.overlaps:
            _print(overlap)
    if report.without:
        talk(f"note: {report.without} structures have no fingerprint and count as shared with none")
    limit = 0.0 if strict else fail_above
    raise typer.Exit(1 if limit is not None and 100 * report.share > limit else 0)


def fingerprint(
    context: typer.Context,
    filter: Annotated[str, typer.Argument(help="Such as: Y AND nelements=2. See docs/queries.md.")] = "all",
    workers: WorkersOption = None,
    json: JsonOption = False,
) -> None:
    """Work out the structural fingerprints that the structures of a filter do not have yet."""
    from mlipdb.subsets.fingerprint import fingerprint

    db = open_database(context)
    done = fingerprint(db, db.query(filter).ids, workers=workers, progress=_progress)
    if json:
        show_json(vars(done))
        return
    print(f"{done.structures} structures: {done.computed} fingerprints computed, {done.without} of them without")
    print(f"tool {done.tool} ({done.version})")


def _progress(done: int, total: int) -> None:
    if done == total or done % 16384 == 0:
        talk(f"{done} of {total} fingerprints")


def _print(overlap: "Overlap") -> None:
    sizes = ((overlap.first, overlap.first_size, overlap.first_copies),
             (overlap.second, overlap.second_size, overlap.second_copies))  # fmt: skip
    print(
        " and ".join(
            f"{name} ({size}{f', {copies} left out as copies' * bool(copies)})" for name, size, copies in sizes
        )
    )
    for each in overlap.shared:
        share = each.second / overlap.second_size if overlap.second_size else 0.0
        line = f"  {each.measure:<12} {each.keys} shared: {each.first} of {overlap.first}, "
        print(f"{line}{each.second} of {overlap.second} ({share:.2%}){_details(each)}")


def _details(each: Any) -> str:
    if not each.keys:
        return ""
    shown = " ".join(f"{example['key']} ({example['first']}, {example['second']})" for example in each.examples[:3])
    return f", {each.other_source} from another source; {shown}{' …' if each.keys > 3 else ''}"
