"""`mlipdb labels`: what each method has labelled, and whether it can be trusted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk
from mlipdb.cli.tables import table_lines

if TYPE_CHECKING:
    from mlipdb.labelling.comparison import LabelComparison, Line
    from mlipdb.labelling.holdings import Holding, HoldingDetails

app = typer.Typer(help="Labels by method: what there is, how two compare, and taking them out.", no_args_is_help=True)

MethodArgument = Annotated[str, typer.Argument(metavar="METHOD", help="Name or number of a method.")]
HEADINGS = ("number", "method", "kind", "structures", "failed", "Hessian rows", "MB", "weights")
NUMERIC = {"number", "structures", "failed", "Hessian rows", "MB", "values", "MAE", "RMSE", "slope"}
COMPARED = ("quantity", "of", "structures", "MAE", "RMSE", "unit", "slope", "verdict", "")


@app.command("list")
def list_command(context: typer.Context, json: JsonOption = False) -> None:
    """List the methods that have labels: how many structures, failures and Hessian rows, and how large."""
    from mlipdb.labelling import list_holdings

    found = list_holdings(open_database(context))
    if json:
        show_json(found)
        return
    _print_table(HEADINGS, [_cells(holding) for holding in found])


@app.command()
def show(context: typer.Context, method: MethodArgument, json: JsonOption = False) -> None:
    """Tell everything known of a method's labels: weights, settings, quantities, failures, and runs that used them."""
    from mlipdb.labelling import show_holding

    found = show_holding(open_database(context), method)
    if json:
        show_json(found.describe())
    else:
        print("\n".join(_detail_lines(found)))


@app.command()
def drop(
    context: typer.Context,
    method: MethodArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it is only said what would go.")] = False,
    json: JsonOption = False,
) -> None:
    """Take out a method's labels and failures; `mlipdb gc` then removes their files."""
    from mlipdb.labelling import drop_labels, show_holding

    database = open_database(context)
    holding = show_holding(database, method).holding
    what = f"{holding.structures} labels and {holding.failed} failures of method {holding.id} ({holding.method.name})"
    if not yes:
        talk(f"this would drop {what}, {holding.bytes / 1e6:.1f} MB; repeat it with --yes")
        raise typer.Exit(1)
    dropped = drop_labels(database, str(holding.id))
    if json:
        show_json(dropped)
    else:
        print(f"dropped {what}; `mlipdb gc` gives back {dropped.bytes / 1e6:.1f} MB in {dropped.shards} shards")


@app.command()
def compare(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="Name or number of a method, or `source`.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another; errors are of this one against the first.")],
    subset: Annotated[str, typer.Option(help="Which structures: a frozen subset's name or any filter.")] = "all",
    sample: Annotated[int, typer.Option(min=1, help="Structures that are read, at most.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Which structures these are.")] = 0,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one HTML file with plots as well.")] = None,
    json: JsonOption = False,
) -> None:
    """Compare two methods, with a verdict on each quantity; exit 1 where one fails. `source`: what was ingested."""
    from mlipdb.labelling.comparison import compare_labels

    found = compare_labels(open_database(context), first, second, filter=subset, sample=sample, seed=seed)
    if html:
        _write_html(html, found)
    if json:
        show_json(found.describe())
    else:
        _print_comparison(found)
    raise typer.Exit(0 if found.ok else 1)


def _write_html(path: Path, found: "LabelComparison") -> None:
    from mlipdb.labelling.comparison.page import write_comparison

    write_comparison(path, found)
    talk(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


def _print_comparison(found: "LabelComparison") -> None:
    read = "" if found.sampled == found.structures else f", {found.sampled} of them read"
    print(f"{found.second} against {found.first}: {found.structures} structures of {found.filter!r} have both{read}")
    _print_table(COMPARED, [_line_cells(line) for line in found.lines])
    for note in found.notes:
        talk(f"note: {note}")


def _line_cells(line: "Line") -> tuple[str, ...]:
    numbers = ["" if value is None else f"{value:.3g}" for value in (line.mae, line.rmse)]
    slope = "" if line.slope is None else f"{line.slope:.3f}"
    return (line.quantity, line.of, str(line.structures), *numbers, line.unit, slope, line.verdict, line.words)


def _print_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Aligned columns, numbers to the right."""
    print("\n".join(table_lines(headings, lines, right=NUMERIC)))


def _cells(holding: "Holding") -> tuple[str, ...]:
    size = "with structures" if holding.with_structures else f"{holding.bytes / 1e6:.1f}"
    counts = (str(number) for number in (holding.structures, holding.failed, holding.hessian_rows))
    method = holding.method
    return (str(holding.id), method.name, method.kind, *counts, size, (method.weights_sha256 or "")[:12])


def _detail_lines(found: "HoldingDetails") -> list[str]:
    holding, method = found.holding, found.holding.method
    facts = [(name, getattr(method, name)) for name in type(method).__dataclass_fields__ if name != "settings"]
    lines = [f"method {holding.id}", *(f"  {name:16s} {value}" for name, value in facts if value is not None)]
    lines += [f"  {name:16s} {value}" for name, value in sorted(method.settings.items())]
    rows = f"{holding.hessian_rows} of {holding.with_rows} structures"
    lines += [f"labels of {holding.structures} structures", f"  {'hessian_rows':16s} {rows}"]
    lines += [f"  {name:16s} {count}" for name, count in found.quantities.items()]
    place = "in the structures' shards" if holding.with_structures else f"{holding.shards} shards"
    lines += [f"  {'stored':16s} {place}, {holding.bytes / 1e6:.1f} MB of labels alone", f"failed {holding.failed}"]
    lines += [f"  {count} {reason}" for reason, count in found.reasons]
    return [*lines, f"runs that used them: {', '.join(found.runs) or 'none'}"]
