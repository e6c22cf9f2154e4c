"""A comparison as one HTML file that needs nothing but itself."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

import numpy as np

from mlipdb.stats import figures
from mlipdb.stats.document import document, table, write_document
from mlipdb.trainers.forgetting.compare import Forgetting
from mlipdb.trainers.forgetting.curve import SHORT, Curve
from mlipdb.trainers.forgetting.text import rows

SHOWN = 40  # curves that are drawn, those with the most faults first
OTHERWISE = "leave out --html; --json has every curve"


def write_page(path: Path, found: Forgetting) -> None:
    """Write the page. Raises MissingExtraError without pymatviz, ConfigError where the file cannot be written."""
    figures.check_plots(otherwise=OTHERWISE)
    write_document(path, document(f"mlipdb: forgetting of {found.target}", _parts(found)))


def _parts(found: Forgetting) -> Iterable[str]:
    yield f"<h1>{escape(found.target)} after {escape(found.against)}</h1>"
    yield (
        f"<p>Before is the foundation, after the fine-tuned model. Both were asked the same: structures of "
        f"<code>{escape(found.subset)}</code> and of <code>{escape(found.foundation_subset)}</code> that the run did "
        f"not learn where there are such, atoms that are too near, and dynamics at constant energy.</p>"
    )
    yield table(("", "before", "after"), rows(found))
    yield from _curves(found, kind="dimers", title="Two atoms", energy="energy (eV), arsinh")
    yield from _curves(found, kind="cells", title="Structures pressed together", energy="energy per atom (eV), arsinh")


def _curves(found: Forgetting, *, kind: str, title: str, energy: str) -> Iterable[str]:
    before: tuple[Curve, ...] = getattr(found.before, kind)
    after: tuple[Curve, ...] = getattr(found.after, kind)
    if not after:
        return
    yield f"<h2>{title}</h2>"
    yield (
        f"<p>Distances are fractions of the sum of covalent radii. Below {SHORT} every pair repels: the energy should "
        f"rise all the way in (a wall), never below that outside (a hole), and no force should change its sign.</p>"
    )
    yield table(
        (kind[:-1], "wall before", "after", "hole before (eV)", "after", "flips before", "after"),
        [
            (b.name, _word(b), _word(a), f"{b.hole:.2f}", f"{a.hole:.2f}", b.flips, a.flips)
            for b, a in zip(before, after, strict=True)
        ],
    )
    pairs = sorted(zip(before, after, strict=True), key=lambda pair: -_severity(pair[1]))
    for place, (old, new) in enumerate(pairs[:SHOWN]):
        lines = {"before": _points(old), "after": _points(new)}
        figure = figures.curves(lines, title=new.name, x="distance / sum of radii", y=energy, logarithmic=False)
        yield figures.as_division(figure, name=f"{kind}-{place}")


def _word(curve: Curve) -> str:
    return "yes" if curve.wall else f"{curve.breaks} breaks"


def _severity(curve: Curve) -> float:
    return float(curve.breaks + curve.flips + np.arcsinh(curve.hole))


def _points(curve: Curve) -> tuple[list[float], list[float]]:
    """The curve with arsinh of its energies, which shows a well of 1 eV beside a wall of 1000."""
    shown = np.where(np.isfinite(curve.energies), np.arcsinh(curve.energies - curve.energies[-1]), np.nan)
    return curve.fractions.tolist(), shown.tolist()
