"""An energy against a distance, and its faults where atoms are too near: no wall, a hole, a flipped force."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

SHORT = 0.7  # of the sum of covalent radii: nearer than that, every pair of atoms repels
STILL = 1e-3  # eV (or eV/Å of a force): less is rounding
Points = Float64[np.ndarray, " points"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve:
    """Distances ascend, as a fraction of the sum of covalent radii; energies in eV, of dimers less those far apart.

    forces push the atoms apart where they are positive, eV/Å; of a curve of cells they are minus the slope, in eV per
    atom and fraction. A value that is not finite counts as a fault.
    """

    name: str
    fractions: Points
    energies: Points
    forces: Points

    @property
    def near(self) -> slice:
        """The points below SHORT."""
        return slice(0, int(np.searchsorted(self.fractions, SHORT)))

    @property
    def breaks(self) -> int:
        """Steps towards each other in the wall along which the energy does not rise."""
        with np.errstate(invalid="ignore"):
            return int((~(np.diff(self.energies[self.near]) < 0.0)).sum())

    @property
    def reach(self) -> float:
        """The fraction down to which the wall holds, from its foot inwards; SHORT where there is none."""
        with np.errstate(invalid="ignore"):
            rises = np.diff(self.energies[self.near]) < 0.0
        steps = len(rises) if rises.all() else int(np.argmin(rises[::-1]))
        foot = self.near.stop - 1
        return float(self.fractions[foot - steps]) if steps else SHORT

    @property
    def wall(self) -> bool:
        """Whether the energy rises all the way in."""
        return self.breaks == 0

    @property
    def hole(self) -> float:
        """How far in eV the energy in the wall falls below the lowest one outside it; 0 where it does not."""
        near, rest = self.energies[self.near], self.energies[self.near.stop :]
        if not np.isfinite(self.energies).all():
            return float("inf")
        depth = float(rest.min() - near.min())
        return depth if depth > STILL else 0.0

    @property
    def flips(self) -> int:
        """How often the force changes its sign in the wall, an attraction at its foot included."""
        forces = self.forces[self.near][::-1]  # from the foot of the wall inwards
        if not np.isfinite(forces).all():
            return len(forces)
        signs = [1.0, *np.sign(forces[np.abs(forces) > STILL])]  # outside the wall it should have begun to repel
        return int((np.diff(signs) != 0).sum())

    def describe(self) -> dict[str, object]:
        """Plain values, the points included."""
        points = {"fractions": self.fractions, "energies": self.energies, "forces": self.forces}
        facts = {name: getattr(self, name) for name in ("name", "wall", "breaks", "reach", "hole", "flips")}
        return {**facts, **{name: [float(f"{v:.6g}") for v in values] for name, values in points.items()}}


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Counts over curves: walls are those without a break, holes those with one, flips changes of sign of all.

    breaks are those of all walls, reach the mean of the fractions down to which they hold, None without a curve.
    """

    curves: int
    walls: int
    breaks: int
    reach: float | None
    holes: int
    deepest: float
    flips: int

    @classmethod
    def of(cls, curves: Iterable[Curve]) -> "Faults":
        """The counts of these curves; deepest in eV."""
        every = list(curves)
        depths = [curve.hole for curve in every]
        return cls(
            curves=len(every),
            walls=sum(curve.wall for curve in every),
            breaks=sum(curve.breaks for curve in every),
            reach=float(np.mean([curve.reach for curve in every])) if every else None,
            holes=sum(depth > 0 for depth in depths),
            deepest=max(depths, default=0.0),
            flips=sum(curve.flips for curve in every),
        )
