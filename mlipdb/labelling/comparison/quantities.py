"""Energies, forces, stresses and Hessian rows of two methods beside each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from mlipdb.labelling.comparison import slope as slopes
from mlipdb.labelling.comparison import verdict as limits
from mlipdb.labelling.comparison.sample import AGAINST
from mlipdb.labelling.comparison.slope import Slope, fit_slope, judge_slope, slope_limit
from mlipdb.labelling.comparison.verdict import Judgement, Line
from mlipdb.labels import ENERGY_KINDS
from mlipdb.subsets.statistics import fit_e0

Pairs = Float64[np.ndarray, "_ 2"]
Values = Float64[np.ndarray, " _"]
Energy = tuple[dict[int, int], float, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class Energies:
    """Energies per atom of both methods in eV, as stored; and without what a constant per element explains of each.

    differences are second minus first as stored, aligned without what such constants explain of them, all eV/atom.
    freedom is structures minus constants that the data decide. constants are those of the difference, eV by element.
    """

    kind: str
    stored: Pairs
    freed: Pairs
    differences: Values
    aligned: Values
    freedom: int
    constants: Mapping[int, float]

    @property
    def aligned_rms(self) -> float | None:
        """Root mean square that is left, over the degrees of freedom; None where there is none."""
        return float(np.sqrt(np.square(self.aligned).sum() / self.freedom)) if self.freedom > 0 else None


def align_energies(found: Mapping[str, Sequence[Energy]]) -> Energies | None:
    """The energies of the first kind that both gave, and what is left of them without constants per element.

    Where they gave no kind in common, those of the two kinds that most structures have.
    """
    mixed = sorted(found, key=lambda kind: len(found[kind]), reverse=True)
    kind = next((kind for kind in (*ENERGY_KINDS, *mixed) if found.get(kind)), None)
    if kind is None:
        return None
    compositions = [composition for composition, _, _ in found[kind]]
    atoms = np.array([sum(composition.values()) for composition in compositions], dtype=np.float64)
    totals = np.array([energies for _, *energies in found[kind]])
    first, second = (fit_e0(compositions, column) for column in totals.T)
    stored = totals / atoms[:, None]
    freed = stored - np.stack([fit.energies(compositions) for fit in (first, second)], axis=1) / atoms[:, None]
    constants = dict(zip(first.atomic_numbers.tolist(), (second.e0 - first.e0).tolist(), strict=True))
    return Energies(
        kind=kind,
        stored=stored,
        freed=freed,
        differences=stored[:, 1] - stored[:, 0],
        aligned=freed[:, 1] - freed[:, 0],
        freedom=len(atoms) - first.rank,
        constants=constants,
    )


def energy_lines(energies: Energies, *, of: str) -> list[Line]:
    """A line on the energies as stored and one after alignment."""
    return [_stored_line(energies, of=of), _aligned_line(energies, of=of)]


def _stored_line(energies: Energies, *, of: str) -> Line:
    rms = _rms(energies.differences)
    left = energies.aligned_rms
    share = None if left is None or rms == 0 else 1 - min(1.0, (left / rms) ** 2)
    differ = share is not None and rms > limits.SAME_ZERO and share > limits.EXPLAINED
    explained = f"composition explains {share:.1%}: another zero of energy" if differ else ""
    words = "; ".join(filter(None, (energies.kind if AGAINST in energies.kind else "", explained)))
    verdict: Judgement = "poor" if differ else "good" if rms <= limits.SAME_ZERO or share is not None else "unknown"
    return Line(
        quantity="energy as stored", of=of, structures=len(energies.stored), values=len(energies.stored),
        unit="eV/atom", mae=_mae(energies.differences), rmse=rms, verdict=verdict, words=words,
        limit=f"poor: rms above {limits.SAME_ZERO} of which composition explains more than {limits.EXPLAINED:.0%}",
    )  # fmt: skip


def _aligned_line(energies: Energies, *, of: str) -> Line:
    mae, count = _mae(energies.aligned), len(energies.aligned)
    line = Line(
        quantity="energy, aligned by element", of=of, structures=count, values=count, unit="eV/atom",
        verdict="unknown", limit=slope_limit(f"mean error up to {limits.GOOD_ENERGY}"),
        words=f"{count} structures are too few for {count - energies.freedom} constants",
    )  # fmt: skip
    if energies.freedom < limits.FEW:
        return line
    slope = fit_slope([pair[None] for pair in energies.freed])
    verdict, words = judge_slope(slope, error=mae / limits.GOOD_ENERGY, factors=slopes.ENERGY_FACTORS)
    spread = _rms(energies.freed[:, 0])
    if spread < limits.SAME_ZERO:  # nothing but composition in the first's energies: no slope to follow
        verdict, words = ("good", "") if mae <= limits.GOOD_ENERGY else ("poor", f"the first varies by {spread:.2g}")
    elif verdict == "good" and mae > limits.GOOD_ENERGY:
        verdict, words = "poor", "follows the first, but not closely"
    return replace(_with_slope(line, slope), mae=mae, rmse=energies.aligned_rms, verdict=verdict, words=words)


def force_line(forces: Sequence[Pairs], *, of: str) -> Line:
    """A line on the force components."""
    return _paired(forces, quantity="forces", of=of, unit="eV/Å", good=limits.GOOD_FORCE, factors=slopes.FORCE_FACTORS)


def row_line(rows: Sequence[Pairs], *, of: str) -> Line:
    """A line on equal rows of the Hessian."""
    return _paired(rows, quantity="Hessian rows", of=of, unit="eV/Å²", good=limits.GOOD_ROW, factors=slopes.ROW_FACTORS)


def stress_line(stresses: Sequence[Pairs], volumes: Sequence[float], *, of: str) -> Line:
    """A line on the stresses; one that was multiplied by the volume is recognised."""
    line = _paired(
        stresses, quantity="stress", of=of, unit="eV/Å³", good=limits.GOOD_STRESS, factors=slopes.STRESS_FACTORS
    )
    if line.verdict == "fails":
        for place, name in enumerate(("first", "second")):
            divided = [_divided(pair, place, volume) for pair, volume in zip(stresses, volumes, strict=True)]
            slope = fit_slope(divided)
            if slope is not None and slope.correlation > limits.RELATED and slope.within(limits.GOOD_SLOPE):
                return replace(line, words=f"the {name} seems to be multiplied by the volume")
    return line


def _divided(pair: Pairs, place: int, volume: float) -> Pairs:
    changed = pair.copy()
    changed[:, place] /= volume
    return changed


def _paired(
    groups: Sequence[Pairs], *, quantity: str, of: str, unit: str, good: float, factors: Mapping[float, str]
) -> Line:
    """A line on pairs of values, a group for each structure."""
    values = np.concatenate(groups)
    difference = values[:, 1] - values[:, 0]
    rms = _rms(difference)
    slope = fit_slope(groups)
    verdict, words = judge_slope(slope, error=rms / good, factors=factors)
    line = Line(
        quantity=quantity, of=of, structures=len(groups), values=len(values), unit=unit, mae=_mae(difference),
        rmse=rms, verdict=verdict, words=words,
        limit=slope_limit(f"correlation from {limits.RELATED} or rms up to {good}"),
    )  # fmt: skip
    return _with_slope(line, slope)


def _with_slope(line: Line, slope: Slope | None) -> Line:
    return line if slope is None else replace(line, slope=slope.value, correlation=slope.correlation)


def _rms(values: Values) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _mae(values: Values) -> float:
    return float(np.abs(values).mean())
