"""Padding: structures joined into one graph of a fixed shape, so that few shapes are compiled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, Shaped

from mlipdb.errors import MlipdbError
from mlipdb.structures import Structure
from mlipdb.trainers.batching.neighbours import Neighbours
from mlipdb.trainers.batching.triplets import pad_triplets
from mlipdb.trainers.graph import AtomicGraph

SMALLEST_ATOMS = 16
SMALLEST_EDGES = 256
SMALLEST_TRIPLETS = 1024
STEPS_PER_DOUBLING = 4


class PaddingError(MlipdbError):
    """Structures do not fit the shape they are to be padded to."""


@dataclass(frozen=True)
class GraphShape:
    """Sizes of a padded graph, the padding atom and the padding graph included; triplets are 0 where not listed."""

    atoms: int
    edges: int
    graphs: int
    triplets: int = 0

    @property
    def capacity(self) -> tuple[int, int, int, int]:
        """Room for edges, atoms, graphs and triplets, without the padding atom and graph."""
        return self.edges, self.atoms - 1, self.graphs - 1, self.triplets

    def holds(self, other: "GraphShape") -> bool:
        """Whether a graph that needs the other shape fits into this one."""
        return all(room >= need for room, need in zip(self.capacity, other.capacity, strict=True))


def needed_shape(structures: Sequence[Structure], neighbour_lists: Sequence[Neighbours]) -> GraphShape:
    """The smallest shape that holds the structures: their sums, and one padding atom and graph."""
    atoms = sum(len(structure) for structure in structures)
    edges = sum(len(neighbours) for neighbours in neighbour_lists)
    triplets = sum(neighbours.triplet_count or 0 for neighbours in neighbour_lists)
    return GraphShape(atoms + 1, edges, len(structures) + 1, triplets)


def round_up(count: int, *, smallest: int) -> int:
    """The next size of a ladder with four steps per doubling: at most a fifth is padding, and shapes are few."""
    size = smallest
    while size < count:
        size *= 2
    steps = [size // 2 + size * step // (2 * STEPS_PER_DOUBLING) for step in range(1, STEPS_PER_DOUBLING + 1)]
    return next((step for step in steps if step >= max(count, smallest)), size)


def bucket_shape(needed: GraphShape) -> GraphShape:
    """The needed shape rounded up, so that a stream of structures compiles a handful of shapes."""
    return GraphShape(
        round_up(needed.atoms, smallest=SMALLEST_ATOMS),
        round_up(needed.edges, smallest=SMALLEST_EDGES),
        round_up(needed.graphs, smallest=2),
        round_up(needed.triplets, smallest=SMALLEST_TRIPLETS) if needed.triplets else 0,
    )


def reuse_shape(needed: GraphShape, previous: GraphShape | None) -> GraphShape:
    """The previous shape while it fits and at least half of it is used; else a new bucket with room to grow.

    The neighbour count of a relaxation wanders; the spare tenth of edges keeps it from crossing a bucket's edge.
    """
    if previous is not None and previous.holds(needed) and previous.edges <= 2 * max(needed.edges, SMALLEST_EDGES):
        return previous
    triplets = needed.triplets + needed.triplets // 5  # they go as the square of the edges
    return bucket_shape(GraphShape(needed.atoms, needed.edges + needed.edges // 10, needed.graphs, triplets))


def pad_graph(
    structures: Sequence[Structure], neighbour_lists: Sequence[Neighbours], *, shape: GraphShape
) -> AtomicGraph:
    """One graph of numpy arrays (float32, int32) in the given shape, as AtomicGraph describes it.

    Positions are taken relative to the mean of each structure, because float32 far from the origin would lose the
    digits that edge vectors need. reverse and triplets are there where the neighbour lists have them. Raises
    PaddingError when the structures do not fit.
    """
    needed = needed_shape(structures, neighbour_lists)
    if not shape.holds(needed):
        raise PaddingError(
            f"{len(structures)} structures need {needed}, padding included, which {shape} does not hold; "
            "make a smaller batch or a larger shape"
        )
    counts = np.array([len(structure) for structure in structures], dtype=np.int32)
    edge_counts = np.array([len(neighbours) for neighbours in neighbour_lists], dtype=np.int32)
    offsets = np.repeat(_before(counts), edge_counts)
    receivers = np.concatenate([n.receivers for n in neighbour_lists]) + offsets
    senders = np.concatenate([n.senders for n in neighbour_lists]) + offsets
    listed = all(neighbours.triplet_count is not None for neighbours in neighbour_lists)
    last_atom, last_graph = shape.atoms - 1, shape.graphs - 1
    return AtomicGraph(
        atomic_numbers=_filled([s.atomic_numbers for s in structures], length=shape.atoms, dtype=np.int32),
        positions=_filled([_centred(s) for s in structures], length=shape.atoms, dtype=np.float32),
        cell=_filled([s.cell[None] for s in structures], length=shape.graphs, dtype=np.float32),
        senders=_filled([senders], length=shape.edges, dtype=np.int32, fill=last_atom),
        receivers=_filled([receivers], length=shape.edges, dtype=np.int32, fill=last_atom),
        shifts=_filled([n.shifts for n in neighbour_lists], length=shape.edges, dtype=np.float32),
        atom_graph=_filled(
            [np.repeat(np.arange(len(counts)), counts)], length=shape.atoms, dtype=np.int32, fill=last_graph
        ),
        atom_mask=np.arange(shape.atoms) < int(counts.sum()),
        edge_mask=np.arange(shape.edges) < len(receivers),
        graph_mask=np.arange(shape.graphs) < len(structures),
        periodic=_filled([np.array([all(s.pbc)]) for s in structures], length=shape.graphs, dtype=np.bool_),
        atom_count=_filled([counts], length=shape.graphs, dtype=np.int32),
        reverse=_reversed(neighbour_lists, edge_counts, length=shape.edges),
        triplets=pad_triplets(receivers, edges=shape.edges, length=shape.triplets) if listed else None,
    )


def _before(counts: Int32[np.ndarray, " structures"]) -> Int32[np.ndarray, " structures"]:
    """Sum of the counts before each one."""
    before: Int32[np.ndarray, " structures"] = np.cumsum(counts, dtype=np.int32) - counts
    return before


def _reversed(
    neighbour_lists: Sequence[Neighbours], edge_counts: Int32[np.ndarray, " structures"], *, length: int
) -> Int32[np.ndarray, " length"] | None:
    """Reversed edges as numbers of the whole graph; padding edges are their own. None where a list has none."""
    parts = [neighbours.reverse for neighbours in neighbour_lists if neighbours.reverse is not None]
    if len(parts) < len(neighbour_lists):
        return None
    reverse = np.arange(length, dtype=np.int32)
    joined = np.concatenate(parts)
    reverse[: len(joined)] = joined + np.repeat(_before(edge_counts), edge_counts)
    return reverse


def _centred(structure: Structure) -> Float64[np.ndarray, "atoms 3"]:
    centred: Float64[np.ndarray, "atoms 3"] = structure.positions - structure.positions.sum(axis=0) / len(structure)
    return centred


def _filled(
    parts: Sequence[Shaped[np.ndarray, "_ ..."]], *, length: int, dtype: type[np.generic], fill: int = 0
) -> Shaped[np.ndarray, "length ..."]:
    """The parts one after another, then the fill value up to the length."""
    count = sum(map(len, parts))
    padded = np.empty((length, *parts[0].shape[1:]), dtype=dtype)
    np.concatenate(parts, out=padded[:count], casting="unsafe")
    padded[count:] = fill
    return padded
