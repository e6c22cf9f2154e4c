"""What is said of one quantity: numbers, a verdict, and the limits by which it is given."""

from dataclasses import dataclass
from typing import Literal

Judgement = Literal["good", "poor", "fails", "unknown"]

FEW = 5  # structures; fewer decide nothing
SURE = 3.0  # standard errors by which a slope must miss its limits
VAGUE = 0.3  # standard error of a slope above which it says nothing

# Slopes of the second method on the first. A softened potential is at 0.8, a unit or a sign is far outside.
GOOD_SLOPE, LIMIT_SLOPE = (0.8, 1.25), (0.5, 2.0)
RELATED = 0.9  # correlation from which values are called related, unless the error is small in itself
HARDLY = 0.5  # correlation below which no factor is suspected
WILD = 5.0  # times a good error: with a low correlation such values are of something else

SAME_ZERO = 0.010  # eV/atom, rms as stored
EXPLAINED = 0.5  # share of that difference that composition explains where conventions differ
GOOD_ENERGY = 0.050  # eV/atom, mean absolute error after alignment
GOOD_FORCE = 0.050  # eV/Å, rms
GOOD_STRESS = 0.005  # eV/Å³, rms; 0.8 GPa
GOOD_ROW = 0.1  # eV/Å², rms
SAME_SUM, LIMIT_SUM = 1e-3, 0.050  # eV/atom between the energy and the sum of atomic energies

# Relative to the entries compared, plus what finite differences and float32 leave, in eV/Å².
GOOD_SYMMETRY, LIMIT_SYMMETRY = (0.02, 0.005), (0.3, 0.02)
GOOD_ACOUSTIC, LIMIT_ACOUSTIC = (0.01, 0.005), (0.1, 0.02)

AT_REST = 0.1  # eV/Å, the largest force of a structure that is taken to be at a minimum
BENT_DOWN = -0.05  # eV/Å², a diagonal entry below which the curvature is negative
GOOD_NEGATIVE, LIMIT_NEGATIVE = 0.10, 0.50  # share of diagonal entries
FEW_ENTRIES = 10


@dataclass(frozen=True, kw_only=True)
class Line:
    """One quantity: of whom, how many structures and values, what was found and what that means.

    mae and rmse are of the second method against the first, or of what should be zero, in the unit. slope is that of
    the second on the first, correlation theirs; None where a quantity has none. limit says what is good and what fails.
    """

    quantity: str
    of: str
    structures: int
    values: int
    unit: str
    mae: float | None = None
    rmse: float | None = None
    slope: float | None = None
    correlation: float | None = None
    verdict: Judgement
    limit: str
    words: str = ""
