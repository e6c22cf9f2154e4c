"""Statistics of labels that a training starts from: isolated-atom energies, a shift and a scale. All in float64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from mlipdb.errors import ConfigError, NotFoundError
from mlipdb.structures import SYMBOLS


@dataclass(frozen=True, eq=False)
class E0Fit:
    """Energies per element that fit total energies best, in eV.

    structures counts the structures that hold each element. rank is that of the composition matrix: where it is below
    the number of elements the data leave some combinations open, and e0 is the solution of least norm.
    residual_rms is of energy minus the sum of e0, in eV per atom.
    """

    atomic_numbers: Int64[np.ndarray, " elements"]
    e0: Float64[np.ndarray, " elements"]
    structures: Int64[np.ndarray, " elements"]
    rank: int
    residual_rms: float

    @property
    def rank_deficient(self) -> bool:
        """True when the data do not decide every e0."""
        return self.rank < len(self.atomic_numbers)

    def energies(self, compositions: Sequence[Mapping[int, int]]) -> Float64[np.ndarray, " structures"]:
        """Sum of e0 over the atoms of each composition, in eV. Raises NotFoundError for an element without e0."""
        known = dict(zip(self.atomic_numbers.tolist(), self.e0.tolist(), strict=True))
        missing = {number for composition in compositions for number in composition} - known.keys()
        if missing:
            names = ", ".join(SYMBOLS[number] for number in sorted(missing))
            raise NotFoundError(f"no isolated-atom energy for {names}: no structure of the fit holds them")
        totals = [sum(count * known[number] for number, count in each.items()) for each in compositions]
        return np.array(totals, dtype=np.float64)


def composition_matrix(
    compositions: Sequence[Mapping[int, int]],
) -> tuple[Int64[np.ndarray, " elements"], Float64[np.ndarray, "structures elements"]]:
    """The elements that occur, ascending, and how many atoms of each a structure has."""
    numbers = sorted({number for composition in compositions for number in composition})
    column = {number: place for place, number in enumerate(numbers)}
    counts = np.zeros((len(compositions), len(numbers)))
    for row, composition in enumerate(compositions):
        for number, count in composition.items():
            counts[row, column[number]] = count
    return np.array(numbers, dtype=np.int64), counts


def fit_e0(compositions: Sequence[Mapping[int, int]], energies: Float64[np.ndarray, " structures"]) -> E0Fit:
    """Least squares of total energies (eV) on compositions, both divided by the number of atoms.

    So the error per atom is what is small. Where the data do not decide every e0 (elements that always come in one
    ratio) the solution of least norm is taken and the rank says so. Raises ConfigError without data.
    """
    if not len(compositions) or len(compositions) != len(energies):
        raise ConfigError(f"{len(compositions)} compositions and {len(energies)} energies: an E0 fit needs one each")
    if not np.isfinite(energies).all():
        raise ConfigError(f"energy {int(np.flatnonzero(~np.isfinite(energies))[0])} of the E0 fit is not finite")
    numbers, counts = composition_matrix(compositions)
    atoms = counts.sum(axis=1)
    shares, targets = counts / atoms[:, None], energies / atoms
    e0, _, rank, _ = np.linalg.lstsq(shares, targets, rcond=None)
    residual = float(np.sqrt(np.mean(np.square(targets - shares @ e0))))
    return E0Fit(numbers, e0, (counts > 0).sum(axis=0).astype(np.int64), int(rank), residual)


def open_directions(compositions: Sequence[Mapping[int, int]]) -> Float64[np.ndarray, "open elements"]:
    """Orthonormal changes of e0 that leave the energy of every composition as it is; as many as the fit lacks rank.

    Columns are the elements of composition_matrix. What counts as nothing is what the fit counts as nothing.
    """
    _, counts = composition_matrix(compositions)
    shares = counts / counts.sum(axis=1)[:, None]
    _, sizes, directions = np.linalg.svd(shares, full_matrices=len(shares) < shares.shape[1])
    least = np.finfo(np.float64).eps * max(shares.shape) * sizes[0]
    found: Float64[np.ndarray, "open elements"] = directions[int((sizes > least).sum()) :]
    return found


def energy_shift(residuals: Float64[np.ndarray, " structures"], natoms: Int64[np.ndarray, " structures"]) -> float:
    """Mean over structures of (energy minus the sum of e0) over the number of atoms, in eV per atom."""
    return float(np.mean(residuals / natoms))


@dataclass
class ForceScale:
    """Root mean square of force components, in eV/Å, collected structure by structure."""

    squares: float = 0.0
    components: int = 0

    def add(self, forces: Float64[np.ndarray, "atoms 3"]) -> None:
        """Take the forces of one structure, in eV/Å."""
        self.squares += float(np.square(forces).sum())
        self.components += forces.size

    @property
    def rms(self) -> float:
        """The root mean square so far; 1 where there are no forces or all are zero, so that it can divide."""
        return float(np.sqrt(self.squares / self.components)) if self.components and self.squares else 1.0
