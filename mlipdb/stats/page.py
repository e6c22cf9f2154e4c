"""Statistics as one HTML file that needs nothing but itself."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from mlipdb.stats import figures
from mlipdb.stats.document import document, table, write_document
from mlipdb.stats.overview import Statistics
from mlipdb.stats.parity import Outlier, Parity


def write_page(path: Path, found: Statistics, *, parity: Parity | None = None) -> None:
    """Write the page, its plots and the JavaScript that draws them to a file.

    Raises MissingExtraError without pymatviz, ConfigError where the file cannot be written.
    """
    write_document(path, page(found, parity=parity))


def page(found: Statistics, *, parity: Parity | None = None) -> str:
    """The text of the page; the same statistics give the same text."""
    figures.check_plots()
    title = f"mlipdb: {found.structures:,} structures of {found.filter}"
    parts = [*_numbers(found), *_plots(found), *(_parity(parity) if parity else ()), *_findings(found)]
    return document(title, parts)


def _numbers(found: Statistics) -> Iterable[str]:
    yield f"<h1>{found.structures:,} structures match <code>{escape(found.filter)}</code></h1>"
    yield (
        f"<p>{found.atoms:,} atoms, {found.materials:,} materials, {len(found.elements)} elements, "
        f"{found.contents:,} different contents; {found.unlabelled:,} structures without a label.</p>"
    )
    yield "<h2>Sources</h2>"
    heads = ("source", "reader", "structures", "duplicates left out", "quarantined", "state", "licence")
    rows = [
        (s.name, s.reader, s.structures, s.duplicates, s.quarantined, s.state, s.licence or "not stated")
        for s in found.sources
    ]
    yield table(heads, rows)
    yield "<h2>Methods</h2>"
    yield table(
        ("number", "name", "kind", "functional", "weights (sha256)", "package", "structures", "failed", "Hessian rows"),
        [
            (m.id, m.name, m.kind, m.functional or "", (m.weights_sha256 or "")[:16],
             " ".join(filter(None, (m.package, m.package_version))), m.structures, m.failed, m.hessian_rows)
            for m in found.methods
        ],
    )  # fmt: skip


def _plots(found: Statistics) -> Iterable[str]:
    if not found.structures:
        return
    yield "<h2>Structures</h2>"
    yield figures.as_division(figures.periodic_table(found.elements), name="elements")
    if found.space_groups:
        yield figures.as_division(figures.space_group_sunburst(found.space_groups), name="space-groups")
    if found.without_space_group:
        yield f"<p>{found.without_space_group:,} structures have no space group.</p>"
    yield figures.as_division(figures.bars(found.sizes, "Atoms in a structure"), name="sizes")
    if not found.methods:
        return
    yield "<h2>Labels</h2>"
    yield figures.as_division(_coverage(found), name="coverage")
    for method in found.methods:
        name = escape(f"{method.name} ({method.id})")
        sample = f"force components of a sample of {method.sampled:,} structures"
        for key, histogram, what in (
            ("energy", method.energy_per_atom, f"{method.energy_kind} per atom"),
            ("max-force", method.max_force, "largest force of each structure"),
            ("components", method.force_components, sample),
        ):
            if histogram:
                figure = figures.bars(histogram, f"{name}: {what}")
                yield figures.as_division(figure, name=f"{key}-{method.id}")


def _coverage(found: Statistics) -> figures.Figure:
    quantities = list(dict.fromkeys(name for method in found.methods for name in method.quantities))
    rows = [[method.quantities.get(name, 0) for name in quantities] for method in found.methods]
    shares = 100 * np.array(rows, dtype=np.float64).reshape(len(rows), len(quantities)) / found.structures
    return figures.coverage([f"{method.name} ({method.id})" for method in found.methods], quantities, shares)


def _parity(parity: Parity) -> Iterable[str]:
    names = (parity.first, parity.second)
    yield f"<h2>Parity of {escape(parity.first)} and {escape(parity.second)}</h2>"
    yield f"<p>{parity.structures:,} structures have labels of both. Errors are of the second against the first.</p>"
    rows = [
        (name, e.unit, e.count, f"{e.mean:.4g}", f"{e.mae:.4g}", f"{e.rmse:.4g}", "" if e.r2 is None else f"{e.r2:.5f}")
        for name, e in parity.errors.items()
    ]
    yield table(("quantity", "unit", "values", "mean", "MAE", "RMSE", "R²"), rows)
    if len(parity.energies):
        title = f"{parity.energy_kind} per atom" + (
            f", a sample of {len(parity.energies):,}"
            if len(parity.energies) < parity.errors["energy per atom"].count
            else ""
        )
        figure = figures.scatter(parity.energies, names=names, title=title, unit="eV/atom")
        figures.mark(figure, parity.outliers)
        yield figures.as_division(figure, name="parity-energy")
    yield _outliers("Furthest apart in energy (eV/atom)", parity.outliers)
    if len(parity.forces):
        title = f"force components of a sample of {parity.sampled:,} structures"
        figure = figures.scatter(
            parity.forces[:: 1 + len(parity.forces) // 20_000], names=names, title=title, unit="eV/Å"
        )
        yield figures.as_division(figure, name="parity-forces")
    yield _outliers("Furthest apart in one force (eV/Å), of that sample", parity.force_outliers)


def _outliers(title: str, outliers: Sequence[Outlier]) -> str:
    rows = [(outlier.id, outlier.external_id, f"{outlier.difference:.4g}") for outlier in outliers]
    return f"<h3>{title}</h3>\n" + table(("structure", "external id", "difference"), rows) if rows else ""


def _findings(found: Statistics) -> Iterable[str]:
    if found.findings:
        yield "<h2>Findings of the checks at ingest</h2>\n<ul>"
        for finding in found.findings:
            mark = f'<span class="{escape(finding.severity)}">{escape(finding.severity)}</span>'
            text = f"{escape(finding.source)}: {escape(finding.message)}"
            yield f"<li>{mark} {text} <code>{escape(finding.check)}</code></li>"
        yield "</ul>"
