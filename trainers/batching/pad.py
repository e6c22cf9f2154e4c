"""Padding: structures joined into one graph of a fixed shape, so that few shapes are compiled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32, Shaped

from mlipdb.errors import MlipdbError
from mlipdb.structures import Structure
from mlipdb.trainers.batching.neighbours import Neighbours
from mlipdb.trainers.graph import AtomicGraph

SMALLEST_ATOMS = 16
SMALLEST_EDGES = 256
STEPS_PER_DOUBLING = 4


class PaddingError(MlipdbError):
    """Structures do not fit the shape they are to be padded to."""


@dataclass(frozen=True)
class GraphShape:
    """Sizes of a padded graph, the padding atom and the padding graph included."""

    atoms: int
    edges: int
    graphs: int

    def holds(self, other: "GraphShape") -> bool:
        """Whether a graph that needs the other shape fits into this one."""
        return self.atoms >= other.atoms and self.edges >= other.edges and self.graphs >= other.graphs


def needed_shape(structures: Sequence[Structure], neighbour_lists: Sequence[Neighbours]) -> GraphShape:
    """The smallest shape that holds the structures: their sums, and one padding atom and graph."""
    atoms = sum(len(structure) for structure in structures)
    edges = sum(len(neighbours) for neighbours in neighbour_lists)
    return GraphShape(atoms + 1, edges, len(structures) + 1)


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
    )


def reuse_shape(needed: GraphShape, previous: GraphShape | None) -> GraphShape:
    """The previous shape while it fits and at least half of it is used; else a new bucket with room to grow.

    The neighbour count of a relaxation wanders; the spare tenth of edges keeps it from crossing a bucket's edge.
    """
    if previous is not None and previous.holds(needed) and previous.edges <= 2 * max(needed.edges, SMALLEST_EDGES):
        return previous
    return bucket_shape(GraphShape(needed.atoms, needed.edges + needed.edges // 10, needed.graphs))


def pad_graph(
    structures: Sequence[Structure], neighbour_lists: Sequence[Neighbours], *, shape: GraphShape
) -> AtomicGraph:
    """One graph of numpy arrays (float32, int32) in the given shape, as AtomicGraph describes it.

    Positions are taken relative to the mean of each structure, because float32 far from the origin would lose the
    digits that edge vectors need. Raises PaddingError when the structures do not fit.
    """
    needed = needed_shape(structures, neighbour_lists)
    if not shape.holds(needed):
        raise PaddingError(
            f"{len(structures)} structures need {needed}, padding included, which {shape} does not hold; "
            "make a smaller batch or a larger shape"
        )
    counts = np.array([len(structure) for structure in structures], dtype=np.int32)
    edge_counts = [len(neighbours) for neighbours in neighbour_lists]
    offsets = np.repeat(np.cumsum(counts, dtype=np.int32) - counts, edge_counts)
    last_atom, last_graph = shape.atoms - 1, shape.graphs - 1
    return AtomicGraph(
        atomic_numbers=_filled([s.atomic_numbers for s in structures], length=shape.atoms, dtype=np.int32),
        positions=_filled([_centred(s) for s in structures], length=shape.atoms, dtype=np.float32),
        cell=_filled([s.cell[None] for s in structures], length=shape.graphs, dtype=np.float32),
        senders=_indices([n.senders for n in neighbour_lists], offsets, length=shape.edges, fill=last_atom),
        receivers=_indices([n.receivers for n in neighbour_lists], offsets, length=shape.edges, fill=last_atom),
        shifts=_filled([n.shifts for n in neighbour_lists], length=shape.edges, dtype=np.float32),
        atom_graph=_filled(
            [np.repeat(np.arange(len(counts)), counts)], length=shape.atoms, dtype=np.int32, fill=last_graph
        ),
        atom_mask=np.arange(shape.atoms) < int(counts.sum()),
        edge_mask=np.arange(shape.edges) < sum(edge_counts),
        graph_mask=np.arange(shape.graphs) < len(structures),
        periodic=_filled([np.array([all(s.pbc)]) for s in structures], length=shape.graphs, dtype=np.bool_),
        atom_count=_filled([counts], length=shape.graphs, dtype=np.int32),
    )


def _centred(structure: Structure) -> Float64[np.ndarray, "atoms 3"]:
    centred: Float64[np.ndarray, "atoms 3"] = structure.positions - structure.positions.mean(axis=0)
    return centred


def _filled(
    parts: Sequence[Shaped[np.ndarray, "_ ..."]], *, length: int, dtype: type[np.generic], fill: int = 0
) -> Shaped[np.ndarray, "length ..."]:
    """The parts one after another, then the fill value up to the length."""
    joined = np.concatenate(parts)
    padded = np.full((length, *joined.shape[1:]), fill, dtype=dtype)
    padded[: len(joined)] = joined
    return padded


def _indices(
    parts: Sequence[Int32[np.ndarray, " _"]], offsets: Int32[np.ndarray, " edges"], *, length: int, fill: int
) -> Int32[np.ndarray, " length"]:
    """Atom numbers within each structure as atom numbers of the whole graph."""
    return _filled([np.concatenate(parts) + offsets], length=length, dtype=np.int32, fill=fill)
