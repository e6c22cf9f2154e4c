"""How near the nearest atoms of a structure are, against the sum of their covalent radii."""

import numpy as np
import vesin
from ase.data import covalent_radii

from mlipdb.structures import Structure
from mlipdb.subsets.neighbours import completed_cell

REACH = 5.0  # Å within which the shortest distance is looked for at first
FARTHEST = 1000.0  # Å


def radii_sum(first: int, second: int) -> float:
    """Sum of the covalent radii of two elements in Å."""
    return float(covalent_radii[first] + covalent_radii[second])


def shortest_fraction(structure: Structure, *, reach: float = REACH) -> float | None:
    """The shortest distance of two atoms, images included, over the sum of their covalent radii; None of one atom."""
    while reach < FARTHEST:
        distances, sums = _pairs(structure, reach)
        if len(distances):
            return float((distances / sums).min())
        reach *= 2
    return None


def _pairs(structure: Structure, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances in Å of the pairs within reach, and the sums of their radii."""
    calculator = vesin.NeighborList(cutoff=reach, full_list=False, sorted=False, n_threads=1)
    first, second, distances = calculator.compute(
        points=structure.positions,
        box=completed_cell(structure.cell, structure.pbc),
        periodic=np.array(structure.pbc),
        quantities="ijd",
    )
    radii = covalent_radii[structure.atomic_numbers]
    return np.array(distances), radii[np.asarray(first, np.int64)] + radii[np.asarray(second, np.int64)]
