"""What a model sees of structures: invariant features of its trunk, averaged over the atoms of each element."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int64

from mlipdb.errors import ConfigError
from mlipdb.trainers.batching.pad import GraphShape, needed_shape, pad_graph, reuse_shape
from mlipdb.trainers.batching.records import Record
from mlipdb.trainers.compiled import compiled
from mlipdb.trainers.graph import AtomicGraph
from mlipdb.trainers.models.base import AbstractModel, AbstractTrunked
from mlipdb.trainers.models.derive import edge_vectors

EDGES = 20_000  # of a batch, as in an evaluation
SMALLEST = 1e-12  # of the mean square of features; below it they say nothing


@dataclass(frozen=True, eq=False)
class Block:
    """Of one element the structures that hold it (places, ascending) and their mean features."""

    structures: Int64[np.ndarray, " rows"]
    means: Float32[np.ndarray, "rows features"]


@dataclass(frozen=True, eq=False)
class Descriptors:
    """Descriptors of count structures, by atomic number; a structure without an element has no row in its block.

    They are scaled so that the mean square length of all rows is 1.
    """

    count: int
    blocks: Mapping[int, Block]

    def __len__(self) -> int:
        return self.count

    def squares(self) -> Float64[np.ndarray, " structures"]:
        """Square length of the descriptor of each structure: over its elements, the squares of their means."""
        squares = np.zeros(self.count, dtype=np.float64)
        for block in self.blocks.values():
            squares[block.structures] += np.square(block.means, dtype=np.float64).sum(axis=1)
        return squares


def descriptors(model: AbstractModel, records: Iterable[Record]) -> Descriptors:
    """Descriptors of these structures, in their order; the model must know their elements.

    Raises ConfigError for a model without features of atoms.
    """
    if not isinstance(model, AbstractTrunked):
        raise ConfigError(
            f"{type(model).__name__} is no AbstractTrunked, so that nothing says how alike structures are; pick at "
            "random (--replay-pick random)"
        )
    rows: dict[int, list[tuple[int, np.ndarray]]] = {}
    count = 0
    for place, (record, features) in enumerate(_features(model, records)):
        count = place + 1
        numbers = record.structure.atomic_numbers
        for number in record.structure.composition:
            rows.setdefault(number, []).append((place, features[numbers == number].mean(axis=0)))
    blocks = {number: _block(found) for number, found in sorted(rows.items())}
    return _scaled(Descriptors(count, blocks), model=model)


def _block(found: Sequence[tuple[int, np.ndarray]]) -> Block:
    places = np.array([place for place, _ in found], dtype=np.int64)
    return Block(places, np.stack([mean for _, mean in found]).astype(np.float32))


def _scaled(found: Descriptors, *, model: AbstractModel) -> Descriptors:
    """The same with mean square length 1, whatever the units of the model's features."""
    rows = sum(len(block.structures) for block in found.blocks.values())
    mean = float(found.squares().sum()) / max(rows, 1)
    if not (np.isfinite(mean) and mean > SMALLEST):
        raise ConfigError(
            f"the features of this {type(model).__name__} have mean square {mean:.3g} on the candidates, which tells "
            "none apart; pick at random (--replay-pick random), or give a trained foundation"
        )
    factor = np.float32(1 / np.sqrt(mean))
    return Descriptors(found.count, {z: Block(b.structures, b.means * factor) for z, b in found.blocks.items()})


def _features(
    model: AbstractTrunked, records: Iterable[Record]
) -> Iterator[tuple[Record, Float32[np.ndarray, "atoms features"]]]:
    """Each record with the invariant features of its atoms, evaluated some at a time."""
    shape: GraphShape | None = None
    for batch in _batches(records):
        structures, lists = [r.structure for r in batch], [r.neighbours for r in batch]
        shape = reuse_shape(needed_shape(structures, lists), shape)
        found = np.asarray(_invariants(model, pad_graph(structures, lists, shape=shape)), dtype=np.float32)
        ends = np.cumsum([len(structure) for structure in structures])
        yield from zip(batch, np.split(found[: ends[-1]], ends[:-1]), strict=True)


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for record in records:
        if batch and sum(len(each.neighbours) for each in batch) + len(record.neighbours) > EDGES:
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


@compiled
def _invariants(model: AbstractTrunked, graph: AtomicGraph) -> Float[Array, "atoms features"]:
    return model.invariants(model.trunk(graph, edge_vectors(graph)))
