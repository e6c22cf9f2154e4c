"""Neighbour lists: all ordered pairs of atoms within a cutoff, or the nearest, periodic images included."""

from dataclasses import dataclass

import numpy as np
import vesin
from jaxtyping import Bool, Float64, Int32, Int64

from mlipdb.structures import Structure
from mlipdb.subsets.neighbours import completed_cell
from mlipdb.trainers.graph import NO_NEEDS, GraphNeeds

AS_FAR = 0.01  # Å; neighbours that much beyond the last of the nearest are as near as it: symmetry makes such ties
FIRST_GUESS = 1.5  # of the mean number wanted, in the first sphere that is searched for the nearest


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Pairs of one structure, sorted by receiver.

    Pair e has the vector positions[senders[e]] - positions[receivers[e]] + shifts[e] @ cell, shorter than the cutoff.
    reverse[e] is the pair the other way round, where it was asked for; triplet_count the number of pairs of edges with
    one receiver, None where triplets were not.
    """

    senders: Int32[np.ndarray, " edges"]
    receivers: Int32[np.ndarray, " edges"]
    shifts: Int32[np.ndarray, "edges 3"]
    reverse: Int32[np.ndarray, " edges"] | None = None
    triplet_count: int | None = None

    def __len__(self) -> int:
        return len(self.senders)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        reverse = 0 if self.reverse is None else self.reverse.nbytes
        return self.senders.nbytes + self.receivers.nbytes + self.shifts.nbytes + reverse


def neighbours(structure: Structure, cutoff: float, *, needs: GraphNeeds = NO_NEEDS) -> Neighbours:
    """All ordered pairs closer than the cutoff in Å, images included; an atom may be its own neighbour by an image.

    Of these, those that the model needs. An isolated atom has none. The order is the same whatever the number of
    threads.
    """
    if needs.max_neighbours is None:
        found = _within(structure, cutoff, reverse=needs.symmetric)
    else:
        found = _nearest(structure, cutoff, count=needs.max_neighbours, symmetric=needs.symmetric)
    triplet_count = _count_triplets(found.receivers) if needs.triplets else None
    return Neighbours(found.senders, found.receivers, found.shifts, found.reverse, triplet_count)


def _within(structure: Structure, cutoff: float, *, reverse: bool) -> Neighbours:
    """All pairs: each is found once and turned round here, which is faster than to have both found and sorted."""
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=False, sorted=False, n_threads=1)
    found, half_shifts = calculator.compute(
        points=structure.positions,
        box=completed_cell(structure.cell, structure.pbc),
        periodic=np.array(structure.pbc),
        quantities="PS",
        copy=False,
    )
    pairs = np.array(found.T, dtype=np.int32, order="C")  # copies, since vesin's memory goes with the calculator
    shifts = np.concatenate([half_shifts, -half_shifts])
    receivers, senders = pairs.ravel(), pairs[::-1].ravel()
    # Numpy sorts 8 and 16 bits by radix, in linear time, and 8 in a third of the time of 16.
    order = np.argsort(receivers.astype(np.min_scalar_type(len(structure))), kind="stable")
    return Neighbours(
        senders=senders.take(order),
        receivers=receivers.take(order),
        shifts=shifts.take(order, axis=0),
        reverse=_reverse(order) if reverse else None,
    )


def _reverse(order: Int64[np.ndarray, " edges"]) -> Int32[np.ndarray, " edges"]:
    """Where the other way round of each pair is, when those found came before their reverses until they were sorted."""
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    half = len(order) // 2
    return np.concatenate([place[half:], place[:half]]).take(order)


def _nearest(structure: Structure, cutoff: float, *, count: int, symmetric: bool) -> Neighbours:
    """The nearest of each receiver, searched in growing spheres, since one of 12 Å may hold a thousand."""
    radius = _first_radius(structure, cutoff, count=count)
    while True:
        found = _within(structure, radius, reverse=symmetric)
        lengths = _lengths(structure, found)
        limits = _limits(found.receivers, lengths, atoms=len(structure), count=count)
        if radius >= cutoff or limits.max() <= radius:
            break
        radius = min(1.26 * radius, cutoff)  # twice the volume
    kept = lengths <= limits[found.receivers]
    return _chosen(found, kept if found.reverse is None else kept | kept[found.reverse])


def _first_radius(structure: Structure, cutoff: float, *, count: int) -> float:
    """A sphere that would hold somewhat more than the count, were the atoms spread evenly; else the cutoff."""
    if not all(structure.pbc):
        return cutoff
    volume = abs(float(np.linalg.det(structure.cell))) / len(structure)
    radius = float((FIRST_GUESS * count * volume * 0.75 / np.pi) ** (1 / 3)) + AS_FAR
    return min(cutoff, radius)


def _lengths(structure: Structure, found: Neighbours) -> Float64[np.ndarray, " edges"]:
    """Å; bit for bit the same both ways."""
    positions = structure.positions
    vectors = positions[found.senders] - positions[found.receivers] + found.shifts @ structure.cell
    lengths: Float64[np.ndarray, " edges"] = np.linalg.norm(vectors, axis=1)
    return lengths


def _limits(
    receivers: Int32[np.ndarray, " edges"], lengths: Float64[np.ndarray, " edges"], *, atoms: int, count: int
) -> Float64[np.ndarray, " atoms"]:
    """How far the neighbours of each atom may be, in Å; infinite for an atom that has no more than the count."""
    degrees = np.bincount(receivers, minlength=atoms)
    starts = np.cumsum(degrees) - degrees
    ordered = lengths[np.lexsort((lengths, receivers))]
    limits = np.full(atoms, np.inf)
    many = degrees > count
    limits[many] = ordered[starts[many] + count - 1] + AS_FAR
    return limits


def _chosen(found: Neighbours, kept: Bool[np.ndarray, " edges"]) -> Neighbours:
    """The pairs kept, the reverse of each among them where there are reverses."""
    reverse = None
    if found.reverse is not None:
        places = np.cumsum(kept, dtype=np.int32) - 1
        reverse = places[found.reverse[kept]]
    return Neighbours(found.senders[kept], found.receivers[kept], found.shifts[kept], reverse)


def _count_triplets(receivers: Int32[np.ndarray, " edges"]) -> int:
    degrees = np.bincount(receivers).astype(np.int64)
    return int((degrees * (degrees - 1)).sum())
