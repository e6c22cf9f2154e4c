"""How a teacher's energies are brought to the labels' convention: one offset per element."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mlipdb.structures import SYMBOLS
from mlipdb.subsets.statistics import fit_e0

ALARM_RMS = 0.010  # eV/atom
ALARM_R2 = 0.5

Composition = Mapping[int, int]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Offsets in eV per atom of each element, to be added to the teacher's atomic energies.

    rms_before and rms_after are of (label − teacher) per atom in eV/atom, without and with the offsets; r2 is the part
    of the variance that the offsets explain.
    """

    offsets: Mapping[int, float]
    structures: int
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
) -> Alignment:
    """Least squares, in float64, of label minus teacher energy (eV) on the composition, per atom.

    Directions that the data does not fix (elements that always come together) get the smallest offsets. before are the
    differences of totals, where those fitted are of sums without E0.
    """
    fit = fit_e0(compositions, differences)
    atoms = np.array([sum(composition.values()) for composition in compositions], dtype=np.float64)
    first = float(np.sqrt(np.mean(np.square((differences if before is None else before) / atoms))))
    return Alignment(
        offsets=dict(zip(fit.atomic_numbers.tolist(), fit.e0.tolist(), strict=True)),
        structures=len(compositions),
        rms_before=first,
        rms_after=fit.residual_rms,
        r2=1.0 - (fit.residual_rms / first) ** 2 if first else 0.0,
    )
