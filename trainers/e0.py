"""What is added to a foundation's energies of isolated atoms, so that its totals meet labels of another convention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from mlipdb.structures import SYMBOLS
from mlipdb.subsets.statistics import composition_matrix
from mlipdb.trainers.student import DataFacts

CLEAR = 1e-2  # of the largest singular value of the compositions; directions below it tell elements apart only weakly
SURE = 10.0  # times what is left per structure: only more than that makes an offset along a weak direction
NOISE = 0.005  # eV/atom that are left at least, however few structures there are to see it

FROM_LABELS = "reestimate"
UNCHANGED = "foundation"


@dataclass(frozen=True, kw_only=True)
class ReferenceShift:
    """What is added to E0 of each element, in eV; elements that are not named keep theirs.

    structures counts those with a label; rank how many combinations of elements their compositions decide: below the
    number of elements the data leave some of the offsets open. rms_before and rms_after are of (label - prediction)
    per atom in eV/atom; None where no structure has an energy.
    """

    mode: str
    offsets: Mapping[int, float]
    structures: int
    rank: int
    rms_before: float | None
    rms_after: float | None

    @property
    def text(self) -> str:
        """One line for people."""
        if self.rms_before is None or self.rms_after is None:
            return "E0: no structure to train on has an energy; those of the foundation stay"
        offsets = ", ".join(f"{SYMBOLS[number]} {offset:+.4f}" for number, offset in self.offsets.items())
        return (
            f"E0 ({self.mode}): energies of the foundation differ from {self.structures} labels by "
            f"{_told(self.rms_before)} rms, by {_told(self.rms_after)} after offsets per element in eV: "
            f"{offsets or 'none'}" + self._undecided
        )

    @property
    def _undecided(self) -> str:
        if self.mode != FROM_LABELS or self.rank == len(self.offsets):
            return ""
        return (
            f" (compositions of rank {self.rank} do not decide {len(self.offsets)} offsets: those nearest to one "
            "offset for all atoms are taken)"
        )

    def applied(self, facts: DataFacts) -> DataFacts:
        """The facts with these E0s."""
        pairs = zip(facts.atomic_numbers, facts.e0, strict=True)
        return replace(facts, e0=tuple(energy + self.offsets.get(number, 0.0) for number, energy in pairs))

    def describe(self) -> dict[str, Any]:
        """Plain values for the run row."""
        return {
            "mode": self.mode,
            "structures": self.structures,
            "rank": self.rank,
            "elements": len(self.offsets),
            "rms_before": self.rms_before,
            "rms_after": self.rms_after,
            "offsets": {SYMBOLS[number]: offset for number, offset in self.offsets.items()},
        }


def reestimated(
    differences: Float64[np.ndarray, " structures"], compositions: Sequence[Mapping[int, int]]
) -> ReferenceShift:
    """Offsets by least squares of label minus prediction (eV) on compositions, both divided by the number of atoms.

    The mean per atom comes off first, and what remains gets the smallest offsets that fit: where the compositions tell
    elements apart that changes nothing; where all are one composition, every element gets the same offset; and what
    the data leave open stays as near to that as it can. Compositions that are nearly alike leave open what only noise
    would decide: a difference of meV over a thousandth of an element more is an offset of electronvolts. Without
    energies there are no offsets.
    """
    if not len(differences):
        return _measured(FROM_LABELS, {}, differences, compositions)
    numbers, counts = composition_matrix(compositions)
    atoms = counts.sum(axis=1)
    mean = float(np.mean(differences / atoms))
    rest, rank = _decided(counts / atoms[:, None], differences / atoms - mean)
    offsets = {int(number): mean + float(offset) for number, offset in zip(numbers, rest, strict=True)}
    return replace(_measured(FROM_LABELS, offsets, differences, compositions), rank=rank)


def _decided(
    shares: Float64[np.ndarray, "structures elements"], wanted: Float64[np.ndarray, " structures"]
) -> tuple[Float64[np.ndarray, " elements"], int]:
    """Smallest least-squares solution along the directions that the data decide, and how many these are.

    They are those that are clear, and a weak one where what it explains is far more than all of them leave.
    """
    left, values, right = np.linalg.svd(shares, full_matrices=False)
    along = left.T @ wanted
    real = values > max(shares.shape) * np.finfo(np.float64).eps * values[0]
    spare = len(wanted) - int(real.sum())
    unexplained = wanted - left[:, real] @ along[real]
    noise = max(NOISE, float(np.sqrt(unexplained @ unexplained / spare))) if spare > 0 else np.inf
    taken = real & ((values >= CLEAR * values[0]) | (np.abs(along) > SURE * noise))
    return right[taken].T @ (along[taken] / values[taken]), int(taken.sum())


def given(
    mode: str,
    *,
    before: Mapping[int, float],
    after: Mapping[int, float],
    differences: Float64[np.ndarray, " structures"],
    compositions: Sequence[Mapping[int, int]],
) -> ReferenceShift:
    """The offsets that lead from E0s before to those after (eV), and how well they do on label minus prediction."""
    offsets = {number: after[number] - value for number, value in before.items() if number in after}
    return _measured(mode, offsets, differences, compositions)


def _measured(
    mode: str,
    offsets: Mapping[int, float],
    differences: Float64[np.ndarray, " structures"],
    compositions: Sequence[Mapping[int, int]],
) -> ReferenceShift:
    if not len(differences):
        return ReferenceShift(mode=mode, offsets=offsets, structures=0, rank=0, rms_before=None, rms_after=None)
    _, counts = composition_matrix(compositions)
    atoms = counts.sum(axis=1)
    moved = [sum(offsets.get(number, 0.0) * count for number, count in each.items()) for each in compositions]
    return ReferenceShift(
        mode=mode,
        offsets=dict(offsets),
        structures=len(differences),
        rank=int(np.linalg.matrix_rank(counts / atoms[:, None], rtol=CLEAR)),
        rms_before=_rms(differences / atoms),
        rms_after=_rms((differences - np.array(moved, dtype=np.float64)) / atoms),
    )


def _rms(errors: Float64[np.ndarray, " structures"]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def _told(rms: float) -> str:
    return f"{rms:.1f} eV/atom" if rms >= 1.0 else f"{1e3 * rms:.1f} meV/atom"
