"""`mlipdb labels`: what each method has labelled, and whether it can be trusted."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.labelling.holdings import Holding, HoldingDetails

app = typer.Typer(help="Labels by method: what there is, how two compare, and taking them out.", no_args_is_help=True)

MethodArgument = Annotated[str, typer.Argument(metavar="METHOD", help="Name or number of a method.")]
HEADINGS = ("number", "method", "kind", "structures", "failed", "Hessian rows", "MB", "weights")
NUMERIC = {"number", "structures", "failed", "Hessian rows", "MB"}


@app.command("list")
def list_command(context: typer.Context, json: JsonOption = False) -> None:
    """List the methods that have labels: how many structures, failures and Hessian rows, and how large."""
    from mlipdb.labelling import list_holdings

    found = list_holdings(open_database(context))
    if json:
        show_json(found)
        return
    rows = [HEADINGS, *(_cells(holding) for holding in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(HEADINGS, row, widths, strict=True)
        print("  ".join(c.rjust(w) if name in NUMERIC else c.ljust(w) for name, c, w in cells).rstrip())


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
