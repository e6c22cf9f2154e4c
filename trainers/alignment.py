"""How a teacher's energies are brought to the labels' convention: one offset per element."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mlipdb.structures import SYMBOLS
from mlipdb.subsets.statistics import E0Fit, fit_e0, open_directions

ALARM_RMS = 0.010  # eV/atom
ALARM_R2 = 0.5

Composition = Mapping[int, int]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Offsets in eV per atom of each element, to be added to the teacher's atomic energies.

    rms_before and rms_after are of (label − teacher) per atom in eV/atom, without and with the offsets; r2 is the part
    of the variance that the offsets explain. rank is that of the compositions: below the number of elements, the data
    leave some combinations of offsets open.
    """

    offsets: Mapping[int, float]
    structures: int
    rank: int
    rms_before: float
    rms_after: float
    r2: float

    @property
    def conventions_differ(self) -> bool:
        """Whether composition explains most of a difference that is too large to be the teacher's error."""
        return self.rms_before > ALARM_RMS and self.r2 > ALARM_R2

    def describe(self) -> dict[str, object]:
        """Plain values for the run row."""
        return {
            "structures": self.structures,
            "rank": self.rank,
            "elements": len(self.offsets),
            "rms_before": self.rms_before,
            "rms_after": self.rms_after,
            "r2": self.r2,
            "offsets": {SYMBOLS[number]: offset for number, offset in self.offsets.items()},
        }


def align(
    differences: Float64[np.ndarray, " structures"],
    compositions: Sequence[Composition],
    *,
    before: Float64[np.ndarray, " structures"] | None = None,
    means: Mapping[int, tuple[float, int]] | None = None,
) -> Alignment:
    """Least squares, in float64, of label minus teacher energy (eV) on the composition, per atom.

    before are the differences of totals, where those fitted are of sums without E0. means are of the teacher's atomic
    energies minus the student's E0 (eV), and how many atoms, by element. Directions that the data does not fix
    (elements that always come together) get the offsets that bring these means nearest to zero: a student would
    have to learn what is left as constants. Without means they get the smallest offsets.
    """
    fit = fit_e0(compositions, differences)
    offsets = fit.e0 if means is None or not fit.rank_deficient else _nearest(fit, compositions, means)
    atoms = np.array([sum(composition.values()) for composition in compositions], dtype=np.float64)
    first = float(np.sqrt(np.mean(np.square((differences if before is None else before) / atoms))))
    return Alignment(
        offsets=dict(zip(fit.atomic_numbers.tolist(), offsets.tolist(), strict=True)),
        structures=len(compositions),
        rank=fit.rank,
        rms_before=first,
        rms_after=fit.residual_rms,
        r2=1.0 - (fit.residual_rms / first) ** 2 if first else 0.0,
    )


def _nearest(
    fit: E0Fit, compositions: Sequence[Composition], means: Mapping[int, tuple[float, int]]
) -> Float64[np.ndarray, " elements"]:
    """Of the offsets that fit equally well, those with the least mean square over atoms of mean plus offset."""
    directions = open_directions(compositions)
    mean, atoms = np.array([means[number] for number in fit.atomic_numbers.tolist()], dtype=np.float64).T
    weights = np.sqrt(atoms)
    steps = np.linalg.lstsq(directions.T * weights[:, None], -(mean + fit.e0) * weights, rcond=None)[0]
    moved: Float64[np.ndarray, " elements"] = fit.e0 + steps @ directions
    return moved
