"""Neighbour lists: all ordered pairs of atoms within a cutoff, periodic images included."""

from dataclasses import dataclass

import numpy as np
import vesin
from jaxtyping import Float64, Int32

from mlipdb.structures import Structure, StructureError

SMALLEST_AREA = 1e-6  # Å²; two lattice vectors that span less are parallel


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Pairs of one structure, sorted by receiver.

    Pair e has the vector positions[senders[e]] - positions[receivers[e]] + shifts[e] @ cell, shorter than the cutoff.
    """

    senders: Int32[np.ndarray, " edges"]
    receivers: Int32[np.ndarray, " edges"]
    shifts: Int32[np.ndarray, "edges 3"]

    def __len__(self) -> int:
        return len(self.senders)


def neighbours(structure: Structure, cutoff: float) -> Neighbours:
    """All ordered pairs closer than the cutoff in Å, images included; an atom may be its own neighbour by an image.

    An isolated atom has none. The order is the same whatever the number of threads.
    """
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    receivers, senders, shifts = calculator.compute(
        points=structure.positions,
        box=_completed(structure.cell, structure.pbc),
        periodic=np.array(structure.pbc),
        quantities="ijS",
    )
    return Neighbours(senders.astype(np.int32), receivers.astype(np.int32), shifts.astype(np.int32))


def _completed(cell: Float64[np.ndarray, "3 3"], pbc: tuple[bool, bool, bool]) -> Float64[np.ndarray, "3 3"]:
    """The cell with directions that do not repeat replaced by unit vectors normal to those that do.

    Only the list sees it: shifts along such directions are 0, so that the lengths put in do not matter.
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
