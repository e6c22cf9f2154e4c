"""Neighbour lists: all ordered pairs of atoms within a cutoff, periodic images included."""

from dataclasses import dataclass

import numpy as np
import vesin
from jaxtyping import Int32

from mlipdb.structures import Structure
from mlipdb.subsets.neighbours import completed_cell


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
        box=completed_cell(structure.cell, structure.pbc),
        periodic=np.array(structure.pbc),
        quantities="ijS",
    )
    return Neighbours(senders.astype(np.int32), receivers.astype(np.int32), shifts.astype(np.int32))
