"""What the labels of one method must fulfil alone: sums of atomic energies, and the shape of Hessian rows."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from mlipdb.labelling.comparison import verdict as limits
from mlipdb.labelling.comparison.sample import RowSet, SideSample
from mlipdb.labelling.comparison.verdict import Judgement, Line
from mlipdb.subsets.statistics import composition_matrix, fit_e0

Values = Float64[np.ndarray, " _"]


def consistency_lines(side: SideSample, *, of: str) -> list[Line]:
    """Lines on what a method gave: atomic energies, symmetry, acoustic sum and curvature of its Hessian rows."""
    lines = [_sum_line(side, of=of)] if side.sums else []
    several = [rows for rows in side.row_sets if rows.rows.shape[1] > 1]  # one atom in a cell has rows of zeros
    if several:
        lines += [_symmetry_line(several, of=of), _acoustic_line(several, of=of), _curvature_line(several, of=of)]
    return lines


def _sum_line(side: SideSample, *, of: str) -> Line:
    """Energy minus the sum of atomic energies, per atom; without E0 a constant per element may be between them."""
    numbers, counts = composition_matrix(side.sum_compositions)
    atoms = counts.sum(axis=1)
    difference = np.array([energy - total for energy, total in side.sums]) / atoms
    freedom = len(atoms)
    if not side.include_e0:
        fit = fit_e0(side.sum_compositions, difference * atoms)
        difference, freedom = difference - fit.energies(side.sum_compositions) / atoms, len(atoms) - fit.rank
    rms = float(np.sqrt(np.square(difference).sum() / freedom)) if freedom else 0.0
    verdict: Judgement = "good" if rms <= limits.SAME_SUM else "fails" if rms > limits.LIMIT_SUM else "poor"
    convention = "with E0" if side.include_e0 else f"without E0, a constant for each of {len(numbers)} elements"
    return Line(
        quantity="sum of atomic energies", of=of, structures=len(atoms), values=len(atoms), unit="eV/atom",
        mae=float(np.abs(difference).mean()), rmse=rms, verdict=verdict if freedom >= 1 else "unknown",
        limit=f"good: rms up to {limits.SAME_SUM}; fails: above {limits.LIMIT_SUM}", words=convention,
    )  # fmt: skip


def _symmetry_line(sets: Sequence[RowSet], *, of: str) -> Line:
    """Entry s of row r beside entry r of row s, where both rows are there."""
    pairs = [pair for rows in sets if len(pair := _mirrored(rows))]
    found = np.concatenate([np.zeros((0, 2)), *pairs])
    difference, size = found[:, 1] - found[:, 0], _rms(found.ravel())
    return _against_zero(
        difference, quantity="Hessian symmetry", of=of, structures=len(pairs), size=size,
        good=limits.GOOD_SYMMETRY, limit=limits.LIMIT_SYMMETRY, bad="rows and columns differ: not a second derivative, "
        "or rows under wrong numbers",
    )  # fmt: skip


def _acoustic_line(sets: Sequence[RowSet], *, of: str) -> Line:
    """The sum of a row over the atoms, which is zero when moving all atoms alike changes nothing."""
    sums = np.concatenate([rows.rows.sum(axis=1).ravel() for rows in sets])
    size = _rms(np.concatenate([np.linalg.norm(rows.rows, axis=1).ravel() for rows in sets]))
    return _against_zero(
        sums, quantity="acoustic sum", of=of, structures=len(sets), size=size,
        good=limits.GOOD_ACOUSTIC, limit=limits.LIMIT_ACOUSTIC, bad="rows do not sum to zero over the atoms",
    )  # fmt: skip


def _against_zero(
    values: Values, *, quantity: str, of: str, structures: int, size: float,
    good: tuple[float, float], limit: tuple[float, float], bad: str,
) -> Line:  # fmt: skip
    """A line on values that should be zero, beside the size of the entries that they are made of."""
    rms = _rms(values)
    bounds = [share * size + floor for share, floor in (good, limit)]
    verdict: Judgement = "good" if rms <= bounds[0] else "fails" if rms > bounds[1] else "poor"
    if not len(values):
        verdict, words = "unknown", "no structure has a row and its mirror"
    else:
        words = f"{rms / size:.1e} of the entries" if size else ""
    return Line(
        quantity=quantity, of=of, structures=structures, values=len(values), unit="eV/Å²",
        mae=float(np.abs(values).mean()) if len(values) else None, rmse=rms if len(values) else None, verdict=verdict,
        limit=f"good: rms up to {good[0]:.0%} of the entries + {good[1]}; fails: above {limit[0]:.0%} + {limit[1]}",
        words=bad if verdict == "fails" else words,
    )  # fmt: skip


def _curvature_line(sets: Sequence[RowSet], *, of: str) -> Line:
    """Diagonal entries, which are not negative at a minimum; those of all structures where none is at rest."""
    resting = [rows for rows in sets if rows.max_force is not None and rows.max_force <= limits.AT_REST]
    enough = sum(len(rows.numbers) for rows in resting) >= limits.FEW_ENTRIES
    chosen = resting if enough else list(sets)
    diagonal = np.concatenate([_diagonal(rows) for rows in chosen])
    negative = float((diagonal < limits.BENT_DOWN).mean())
    where = f"of structures with forces up to {limits.AT_REST} eV/Å" if enough else "of all structures: few are at rest"
    verdict: Judgement = "good" if negative <= limits.GOOD_NEGATIVE else "poor"
    verdict = "fails" if negative > limits.LIMIT_NEGATIVE else verdict
    words = f"{negative:.1%} of diagonal entries are negative, {where}"
    return Line(
        quantity="curvature at minima", of=of, structures=len(chosen), values=len(diagonal), unit="eV/Å²",
        verdict=verdict if len(diagonal) >= limits.FEW_ENTRIES else "unknown",
        limit=f"good: up to {limits.GOOD_NEGATIVE:.0%} negative; fails: more than {limits.LIMIT_NEGATIVE:.0%}",
        words=f"{words}: the sign is turned (rows of the force, not of the energy)" if verdict == "fails" else words,
    )  # fmt: skip


def _mirrored(found: RowSet) -> Float64[np.ndarray, "_ 2"]:
    """Entries (r, s) and (s, r) for all r < s among the rows."""
    block = found.rows.reshape(len(found.numbers), -1)[:, found.numbers]
    upper = np.triu_indices(len(found.numbers), k=1)
    return np.column_stack([block[upper], block.T[upper]])


def _diagonal(found: RowSet) -> Values:
    flat = found.rows.reshape(len(found.numbers), -1)
    return np.asarray(flat[np.arange(len(found.numbers)), found.numbers])


def _rms(values: Values) -> float:
    return float(np.sqrt(np.square(values).mean())) if len(values) else 0.0
