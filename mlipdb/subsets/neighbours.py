"""How many neighbours atoms have within a cutoff, periodic images included."""

import numpy as np
from jaxtyping import Float64

from mlipdb.structures import Structure, StructureError

SMALLEST_AREA = 1e-6  # Å²; two lattice vectors that span less are parallel


def count_pairs(structure: Structure, cutoff: float) -> int:
    """Ordered pairs of atoms closer than the cutoff in Å; an atom may be its own neighbour by an image."""
    import vesin

    calculator = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=False, n_threads=1)
    (first,) = calculator.compute(
        points=structure.positions,
        box=completed_cell(structure.cell, structure.pbc),
        periodic=np.array(structure.pbc),
        quantities="i",
    )
    return len(first)


def completed_cell(cell: Float64[np.ndarray, "3 3"], pbc: tuple[bool, bool, bool]) -> Float64[np.ndarray, "3 3"]:
    """The cell with directions that do not repeat replaced by unit vectors normal to those that do.

    Only a neighbour list sees it: shifts along such directions are 0, so that the lengths put in do not matter.
    """
    repeating = np.flatnonzero(pbc)
    if len(repeating) == 3:
        return cell
    completed = np.array(cell)
    others = [axis for axis in range(3) if axis not in repeating]
    _, strengths, directions = np.linalg.svd(cell[repeating], full_matrices=True)
    if len(repeating) == 2 and strengths[0] * strengths[1] < SMALLEST_AREA:
        raise StructureError(f"lattice vectors {repeating.tolist()} are parallel; they span no plane to repeat in")
    for axis, direction in zip(others, directions[len(repeating) :], strict=True):
        completed[axis] = direction
    return completed
