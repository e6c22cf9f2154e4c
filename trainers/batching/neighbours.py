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
        found, _ = _within(structure, cutoff)
        reverse = _reverse(found, len(structure)) if needs.symmetric else None
    else:
        found, reverse = _nearest(structure, cutoff, count=needs.max_neighbours, symmetric=needs.symmetric)
    triplet_count = _count_triplets(found.receivers) if needs.triplets else None
    return Neighbours(found.senders, found.receivers, found.shifts, reverse, triplet_count)


def _within(structure: Structure, cutoff: float) -> tuple[Neighbours, Float64[np.ndarray, " edges"]]:
    """All pairs, and their lengths in Å."""
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    receivers, senders, shifts, lengths = calculator.compute(
        points=structure.positions,
        box=completed_cell(structure.cell, structure.pbc),
        periodic=np.array(structure.pbc),
        quantities="ijSd",
    )
    return Neighbours(senders.astype(np.int32), receivers.astype(np.int32), shifts.astype(np.int32)), lengths


def _nearest(
    structure: Structure, cutoff: float, *, count: int, symmetric: bool
) -> tuple[Neighbours, Int32[np.ndarray, " edges"] | None]:
    """The nearest of each receiver, searched in growing spheres, since one of 12 Å may hold a thousand."""
    radius = _first_radius(structure, cutoff, count=count)
    while True:
        found, lengths = _within(structure, radius)
        limits = _limits(found.receivers, lengths, atoms=len(structure), count=count)
        if radius >= cutoff or limits.max() <= radius:
            break
        radius = min(1.26 * radius, cutoff)  # twice the volume
    kept = lengths <= limits[found.receivers]
    if not symmetric:
        return _chosen(found, kept), None
    reverse = _reverse(found, len(structure))
    kept = kept | kept[reverse]
    places = np.cumsum(kept, dtype=np.int32) - 1
    return _chosen(found, kept), places[reverse[kept]].astype(np.int32)


def _first_radius(structure: Structure, cutoff: float, *, count: int) -> float:
    """A sphere that would hold somewhat more than the count, were the atoms spread evenly; else the cutoff."""
    if not all(structure.pbc):
        return cutoff
    volume = abs(float(np.linalg.det(structure.cell))) / len(structure)
    return min(cutoff, (FIRST_GUESS * count * volume * 0.75 / np.pi) ** (1 / 3) + AS_FAR)


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
    return Neighbours(found.senders[kept], found.receivers[kept], found.shifts[kept])


def _reverse(found: Neighbours, atoms: int) -> Int32[np.ndarray, " edges"]:
    """The pair from receiver to sender by the opposite shift, for each pair; parallel pairs differ by their shift."""
    forward = np.argsort(_keys(found.receivers, found.senders, found.shifts, atoms=atoms))
    backward = np.argsort(_keys(found.senders, found.receivers, -found.shifts, atoms=atoms))
    reverse = np.empty(len(found), dtype=np.int32)
    reverse[forward] = backward
    return reverse


def _keys(
    first: Int32[np.ndarray, " edges"],
    second: Int32[np.ndarray, " edges"],
    shifts: Int32[np.ndarray, "edges 3"],
    *,
    atoms: int,
) -> Int64[np.ndarray, " edges"]:
    """One number for each pair, different for different ones."""
    reach = int(np.abs(shifts).max(initial=0))
    span = 2 * reach + 1
    keys = first.astype(np.int64) * atoms + second
    for axis in range(3):
        keys = keys * span + (shifts[:, axis] + reach)
    return keys


def _count_triplets(receivers: Int32[np.ndarray, " edges"]) -> int:
    degrees = np.bincount(receivers).astype(np.int64)
    return int((degrees * (degrees - 1)).sum())
