"""How values of a second method follow those of a first: the slope, how sure it is, and which factor it looks like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from jaxtyping import Float64

from mlipdb.labelling.comparison import verdict as limits
from mlipdb.labelling.comparison.verdict import Judgement

LARGEST = 99.0  # percentile of the structures' sizes beyond which a structure would decide the slope alone
NEAR = 0.3  # of the logarithm: as near a slope must be to a factor for it to be named

HARTREE, BOHR, KCAL, GPA = 27.211386, 0.52917721, 0.0433641, 160.21766  # eV, Å, eV, GPa in eV/Å³


def both_ways(factors: Mapping[float, str]) -> dict[float, str]:
    """Factors and their inverses: which of the two methods has the wrong unit is not known."""
    return {**factors, **{1 / factor: words for factor, words in factors.items()}}


ENERGY_FACTORS = both_ways({HARTREE: "eV and hartree", 1 / KCAL: "eV and kcal/mol", 1e3: "eV and meV"})
FORCE_FACTORS = both_ways(
    {
        HARTREE / BOHR: "eV/Å and hartree/bohr", HARTREE: "eV/Å and hartree/Å", 1 / BOHR: "eV/Å and eV/bohr",
        1 / KCAL: "eV/Å and kcal/mol/Å", 1e3: "eV/Å and meV/Å",
    }
)  # fmt: skip
STRESS_FACTORS = both_ways({10 * GPA: "eV/Å³ and kbar", GPA: "eV/Å³ and GPa", 10.0: "GPa and kbar"})
ROW_FACTORS = both_ways({HARTREE / BOHR**2: "eV/Å² and hartree/bohr²"})


@dataclass(frozen=True, kw_only=True)
class Slope:
    """The slope through the origin of second on first and the correlation, with standard errors over structures.

    structures are those that had values to follow. error is None where they are fewer than two.
    """

    value: float
    error: float | None
    correlation: float
    correlation_error: float
    structures: int

    def within(self, bounds: tuple[float, float]) -> bool:
        """Whether the slope may lie within the bounds, as far as it is known."""
        spread = limits.SURE * (self.error or 0.0)
        return self.value + spread >= bounds[0] and self.value - spread <= bounds[1]

    @property
    def unrelated(self) -> bool:
        """Whether the correlation is surely low."""
        enough = self.structures >= limits.FEW
        return enough and abs(self.correlation) + limits.SURE * self.correlation_error < limits.HARDLY

    @property
    def known(self) -> bool:
        """Whether there was enough to tell a slope."""
        enough = self.structures >= limits.FEW and self.error is not None
        return enough and float(self.error or 0.0) <= limits.VAGUE * max(1.0, abs(self.value))


def fit_slope(groups: Sequence[Float64[np.ndarray, "_ 2"]]) -> Slope | None:
    """The slope over structures (one group each), without those whose values are by far the largest.

    None where all values of the first method are zero.
    """
    products = np.array([[group[:, 0] @ group[:, 0], group[:, 0] @ group[:, 1], group[:, 1] @ group[:, 1]]
                         for group in groups])  # fmt: skip
    sizes = products[:, 0] / [len(group) for group in groups]
    products = products[(sizes > 0) & (sizes <= np.percentile(sizes, LARGEST, method="higher"))]
    xx, xy, yy = products.sum(axis=0) if len(products) else np.zeros(3)
    if not xx > 0:
        return None
    value = xy / xx
    moments = products[:, 1] - value * products[:, 0]  # of x with the residual, for each structure
    error = float(np.sqrt(np.square(moments).sum()) / xx) if len(products) > 1 else None
    correlation = float(xy / np.sqrt(xx * yy)) if yy > 0 else 0.0
    return Slope(
        value=float(value),
        error=error,
        correlation=correlation,
        correlation_error=(error or 0.0) * float(np.sqrt(xx / yy)) if yy > 0 else 0.0,
        structures=len(products),
    )


def judge_slope(slope: Slope | None, *, error: float, factors: Mapping[float, str]) -> tuple[Judgement, str]:
    """A verdict and words on a slope; error is that of the values, in units of what is good in itself."""
    small = error <= 1
    if slope is None:
        return "unknown", "the first method gave nothing but zeros"
    missed = not slope.within(limits.LIMIT_SLOPE) and slope.structures >= limits.FEW
    if missed or (slope.unrelated and error > limits.WILD):
        return "fails", _suspicion(slope, factors)
    if not slope.known:
        return ("good", "") if small else ("unknown", f"too little to tell a slope from {slope.structures} structures")
    if slope.within(limits.GOOD_SLOPE) and (small or slope.correlation >= limits.RELATED):
        return "good", ""
    if not slope.within(limits.GOOD_SLOPE):
        return "poor", "softer than the first" if slope.value < 1 else "stiffer than the first"
    return "poor", f"scattered: correlation {slope.correlation:.2f}"


def slope_limit(good: str) -> str:
    """The limits of a verdict by slope, in words."""
    low, high = limits.GOOD_SLOPE
    least, most = limits.LIMIT_SLOPE
    return f"good: slope {low} to {high} and {good}; fails: slope surely outside {least} to {most}"


def _suspicion(slope: Slope, factors: Mapping[float, str]) -> str:
    if abs(slope.correlation) < limits.HARDLY:
        return f"hardly related (correlation {slope.correlation:.2f}): labels of other structures?"
    sign = "the sign is turned" if slope.value < 0 else ""
    size = abs(slope.value)
    nearest = min(factors, key=lambda factor: abs(log(size / factor)))
    if abs(log(size / nearest)) < NEAR:
        unit = f"a factor of {nearest:.4g}, as between {factors[nearest]}, is suspected"
        return f"{sign}, and {unit}" if sign else unit
    if sign and limits.LIMIT_SLOPE[0] <= size <= limits.LIMIT_SLOPE[1]:
        return f"{sign} (-1)"
    return f"{sign + ', and ' if sign else ''}off by a factor of {size:.3g}"
