"""A comparison of labels as one HTML file that needs nothing but itself."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mlipdb.labelling.comparison.compare import LabelComparison
from mlipdb.labelling.comparison.verdict import Line
from mlipdb.stats import figures
from mlipdb.stats.document import document, write_document
from mlipdb.structures import SYMBOLS

POINTS = 20_000  # of a plot
COLOURS = "td.good { color: #2a6b2a } td.poor { color: #946200 } td.fails { color: #a1301c; font-weight: bold }\n"
HEADS = (
    "quantity",
    "of",
    "structures",
    "values",
    "MAE",
    "RMSE",
    "unit",
    "slope",
    "correlation",
    "verdict",
    "",
    "limit",
)


def write_comparison(path: Path, found: LabelComparison) -> None:
    """Write the page, its plots and the JavaScript that draws them to a file.

    Raises MissingExtraError without pymatviz, ConfigError where the file cannot be written.
    """
    figures.check_plots()
    title = f"mlipdb: labels of {found.second} against {found.first}"
    write_document(path, document(title, [*_numbers(found), *_plots(found)], style=COLOURS))


def _numbers(found: LabelComparison) -> Iterable[str]:
    yield f"<h1>{escape(found.second)} against {escape(found.first)}</h1>"
    yield (
        f"<p>{found.structures:,} structures of <code>{escape(found.filter)}</code> have labels of both, "
        f"{found.sampled:,} of them were read. Errors are of the second against the first.</p>"
    )
    yield from (f'<p class="warning">{escape(note)}</p>' for note in found.notes)
    lines = "\n".join(_row(line) for line in found.lines)
    heads = "".join(f"<th>{head}</th>" for head in HEADS)
    yield f"<table>\n<tr>{heads}</tr>\n{lines}\n</table>"
    if found.constants:
        yield "<h2>Constants per element</h2>\n<p>What the second energy has more for an atom, in eV.</p>"
        cells = [f"<td>{SYMBOLS[number]}</td><td>{value:.4f}</td>" for number, value in sorted(found.constants.items())]
        yield "<table>\n" + "\n".join(f"<tr>{''.join(row)}</tr>" for row in _by_six(cells)) + "\n</table>"


def _row(line: Line) -> str:
    numbers = ["" if value is None else f"{value:.4g}" for value in (line.mae, line.rmse)]
    follows = ["" if value is None else f"{value:.3f}" for value in (line.slope, line.correlation)]
    cells = [line.quantity, line.of, f"{line.structures:,}", f"{line.values:,}", *numbers, line.unit, *follows]
    verdict = f'<td class="{line.verdict}">{line.verdict}</td>'
    tail = "".join(f"<td>{escape(text)}</td>" for text in (line.words, line.limit))
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}{verdict}{tail}</tr>"


def _plots(found: LabelComparison) -> Iterable[str]:
    energies, sample = found.energies, found.sample
    if energies is not None:
        yield _scatter(
            found, energies.stored, name="energy", title=f"{energies.kind} per atom as stored", unit="eV/atom"
        )
        title = "energy per atom without constants per element, of each method its own"
        yield _scatter(found, energies.freed, name="energy-aligned", title=title, unit="eV/atom")
    for name, groups, title, unit in (
        ("forces", sample.forces, "force components", "eV/Å"),
        ("stress", sample.stresses, "stress components", "eV/Å³"),
        ("rows", sample.rows, "entries of Hessian rows", "eV/Å²"),
    ):
        if groups:
            yield _scatter(found, np.concatenate(groups), name=name, title=title, unit=unit)


def _scatter(found: LabelComparison, values: Float64[np.ndarray, "_ 2"], *, name: str, title: str, unit: str) -> str:
    shown = values[:: 1 + len(values) // POINTS]
    figure = figures.scatter(shown, names=(found.first, found.second), title=title, unit=unit)
    return figures.as_division(figure, name=name)


def _by_six(cells: Sequence[str]) -> list[Sequence[str]]:
    return [cells[start : start + 6] for start in range(0, len(cells), 6)]
