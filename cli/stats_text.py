"""Statistics as text: tables and bars in 80 columns; colours on a terminal only."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from mlipdb.stats import Histogram, MethodSummary, Parity, Statistics

WIDTH = 80
BAR = 30
SHOWN = 10  # of a list that can be long


def print_statistics(found: "Statistics") -> None:
    """Every section that has something to say."""
    console = Console(width=WIDTH, highlight=False)
    _print_counts(console, found)
    _print_sources(console, found)
    _print_elements(console, found)
    _print_space_groups(console, found)
    _print_histogram(console, "sizes", found.sizes)
    _print_coverage(console, found)
    for method in found.methods:
        _print_method(console, method)
    _print_tags(console, found.tags)
    _print_findings(console, found)


def print_parity(parity: "Parity") -> None:
    """How far two methods are apart, and where most."""
    console = Console(width=WIDTH, highlight=False)
    _title(console, f"parity of {parity.first} and {parity.second}")
    console.print(f"  {parity.structures:,} structures have labels of both; second minus first", markup=False)
    rows = [
        (name, errors.unit, f"{errors.count:,}", *(_number(v) for v in (errors.mae, errors.rmse, errors.r2)))
        for name, errors in parity.errors.items()
    ]
    _table(console, ("quantity", "unit", "values", "MAE", "RMSE", "R²"), rows, right=(2, 3, 4, 5))
    if parity.sampled < parity.structures:
        console.print(f"  forces of a sample of {parity.sampled:,} structures", markup=False)
    outliers = [(str(o.id), o.external_id, _number(o.difference)) for o in parity.outliers[:SHOWN]]
    _table(console, ("furthest apart", "external id", "energy (eV/atom)"), outliers, right=(0, 2))
    outliers = [(str(o.id), o.external_id, _number(o.difference)) for o in parity.force_outliers[:SHOWN]]
    _table(console, ("furthest apart", "external id", "force (eV/Å)"), outliers, right=(0, 2))


def _print_counts(console: Console, found: "Statistics") -> None:
    console.print(f"[bold]{found.structures:,}[/] structures match {escape(repr(found.filter))}", soft_wrap=True)
    rows = [("atoms", f"{found.atoms:,}"), ("materials", f"{found.materials:,}")]
    repeated = found.structures - found.contents
    rows.append(("contents", f"{found.contents:,}" + (f"; {repeated:,} repeat another" if repeated else "")))
    if found.structures:
        rows.append(("sites", f"{found.smallest} to {found.largest}, median {found.median_size}"))
    rows.append(("elements", ", ".join(f"{n:,} with {k}" for k, n in found.nelements.items())))
    rows.append(("periodic", ", ".join(f"{n:,} in {k} directions" for k, n in found.periodic_directions.items())))
    rows += [(tool, f"{f['distinct']:,} different of {f['structures']:,}") for tool, f in found.fingerprints.items()]
    _table(console, None, [row for row in rows if row[1]])


def _print_sources(console: Console, found: "Statistics") -> None:
    rows = [
        (s.name, s.reader, f"{s.structures:,}", f"{s.duplicates:,}", f"{s.quarantined:,}", s.state, s.licence or "")
        for s in found.sources
    ]
    heads = ("source", "reader", "structures", "duplicates", "quarantine", "state", "licence")
    _table(console, heads, rows, right=(2, 3, 4))


def _print_elements(console: Console, found: "Statistics") -> None:
    if not found.elements:
        return
    _title(console, f"elements ({len(found.elements)}): share of the structures that hold each")
    ordered = sorted(found.elements, key=lambda element: -element.structures)
    cells = [f"{e.symbol:<3}{100 * e.structures / found.structures:5.1f}%" for e in ordered]
    for start in range(0, len(cells), 7):
        console.print("  " + "  ".join(cells[start : start + 7]))


def _print_space_groups(console: Console, found: "Statistics") -> None:
    if not found.space_groups:
        return
    systems = {name: count for name, count in found.crystal_systems.items() if count}
    _title(console, "crystal systems")
    _bars(console, systems.items())
    _title(console, f"space groups: the commonest of {len(found.space_groups)}")
    groups = [(f"{group.symbol} ({group.number})", group.structures) for group in found.space_groups[:SHOWN]]
    _bars(console, groups)
    if found.without_space_group:
        console.print(f"  {found.without_space_group:,} structures have none")


def _print_coverage(console: Console, found: "Statistics") -> None:
    """Which method gave which quantities for how many of the structures."""
    for method in found.methods:
        maker = method.functional or (method.weights_sha256 or "")[:12]
        named = f"labels by {method.name} (method {method.id}, {method.kind}{', ' if maker else ''}{maker})"
        _title(console, named)
        rows = [("structures", method.structures), *method.quantities.items()]
        lines = [(name, f"{count:,}", _percent(count, found.structures)) for name, count in rows]
        if method.failed:
            lines.append(("failed", f"{method.failed:,}", _percent(method.failed, found.structures)))
        _table(console, None, lines, right=(1, 2))
    if found.unlabelled:
        console.print(f"  {found.unlabelled:,} structures have no label", markup=False)


def _print_method(console: Console, method: "MethodSummary") -> None:
    if method.energy_per_atom and method.energy_mean is not None:
        spread = f"mean {method.energy_mean:.3f}, standard deviation {method.energy_deviation:.3f}"
        _print_histogram(console, f"{method.name}: {method.energy_kind} per atom, {spread}", method.energy_per_atom)
    if method.max_force:
        _print_histogram(console, f"{method.name}: largest force of each structure", method.max_force)
    if method.force_components:
        heading = f"{method.name}: force components of a sample of {method.sampled:,} structures"
        _print_histogram(console, heading, method.force_components)


def _print_tags(console: Console, tags: Mapping[str, Mapping[str, int]]) -> None:
    for name, values in tags.items():
        _title(console, f"tag {name}")
        _bars(console, values.items())


def _print_findings(console: Console, found: "Statistics") -> None:
    if found.findings:
        _title(console, "findings of the checks at ingest")
    for finding in found.findings:
        line = f"  {finding.severity}: {finding.source}: {finding.message} [{finding.check}]"
        console.print(line, markup=False, soft_wrap=True)


def _print_histogram(console: Console, heading: str, histogram: "Histogram") -> None:
    if not histogram.bins:
        return
    _title(console, f"{heading} ({histogram.unit})")
    _bars(console, ((bin.name, bin.count) for bin in histogram.bins))


def _bars(console: Console, rows: Iterable[tuple[str, int]]) -> None:
    """A line for each name: its count and a bar as long as it is large."""
    known = list(rows)
    most = max((count for _, count in known), default=0)
    lines = [(name, f"{count:,}", "█" * -(-BAR * count // most) if count else "") for name, count in known]
    _table(console, None, lines, right=(1,))


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(text, style="bold", markup=False)


def _table(
    console: Console, heads: Sequence[str] | None, rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """Aligned columns without lines; nothing where there is no row."""
    if not rows:
        return
    table = Table(box=None, show_header=heads is not None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place in range(len(rows[0])):
        side = "right" if place in right else "left"
        table.add_column(heads[place] if heads else "", justify=side, overflow="fold")  # type: ignore[arg-type]  # as above
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    if heads:
        console.print()
    console.print(table)


def _percent(count: int, whole: int) -> str:
    return f"{100 * count / whole:.1f}%" if whole else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
