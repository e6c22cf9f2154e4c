"""Which structures make a batch: bins of a few shapes, filled evenly, the same for the same seed and epoch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from mlipdb.trainers.batching.bins import Bin, fill_bins
from mlipdb.trainers.batching.pad import GraphShape

WINDOW = 32  # usual bins that are filled together; more mix sizes less and fill no better
FILL = 0.995  # of the edges of a window's bins; what finds no room waits for the next window
EVEN = 0.985  # of the edges of all bins of an epoch; more, and some are left over that need another bin
ROOM = 1.5  # atoms of a bin over its mean need, so that edges, which cost, are what fills it
TRIPLET_ROOM = 1.1  # as the square of the edges they vary more, but they cost as well
LARGER_SHAPES = 3  # at most, each some twice the one before; one compiled step for each
WORTH_A_SHAPE = 0.05  # of all edges, in structures that a shape is made for

Places = Int64[np.ndarray, " _"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sizes:
    """Atoms, edges and, where they are listed, triplets of each structure of a part of the data."""

    atoms: Int64[np.ndarray, " structures"]
    edges: Int64[np.ndarray, " structures"]
    triplets: Int64[np.ndarray, " structures"] | None = None

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def table(self) -> Int64[np.ndarray, "structures 4"]:
        """What each structure takes of a shape: edges, atoms, graphs, triplets."""
        triplets = np.zeros_like(self.edges) if self.triplets is None else self.triplets
        return np.column_stack([self.edges, self.atoms, np.ones_like(self.edges), triplets])


@dataclass(frozen=True, eq=False, kw_only=True)
class PlannedBatch:
    """Places (0-based, in the part of the data) of the structures of one batch, and the shape that it is padded to."""

    members: Int64[np.ndarray, " members"]
    shape: GraphShape


def joined(parts: list[Sizes]) -> Sizes:
    """The sizes of several parts of the data, one after another."""
    listed = [part.triplets for part in parts if part.triplets is not None]
    return Sizes(
        atoms=np.concatenate([part.atoms for part in parts]),
        edges=np.concatenate([part.edges for part in parts]),
        triplets=np.concatenate(listed) if len(listed) == len(parts) else None,
    )


def choose_shapes(sizes: Sizes, *, graphs: int, edges: int = 0) -> tuple[GraphShape, ...]:
    """One shape for batches of about `graphs` structures (or `edges` edges), and up to three for larger structures.

    Sizes include the padding atom and graph; every structure fits one of the shapes alone. With `edges` the first has
    no more of them, else some more or fewer, so that the batches of an epoch come out even.
    """
    usual = _usual(sizes, graphs=graphs, edges=edges)
    shapes = [usual]
    limits = _larger_limits(sizes, usual)
    for limit in limits:
        held = sizes.edges <= limit if limit < limits[-1] else np.ones(len(sizes), np.bool_)
        shapes.append(_grown(shapes[-1], sizes, held))
    return tuple(shapes)


def _usual(sizes: Sizes, *, graphs: int, edges: int) -> GraphShape:
    mean_edges, total = max(float(sizes.edges.mean()), 1.0), float(sizes.edges.sum())
    graphs = min(max(1, round(edges / mean_edges)) if edges else graphs, len(sizes))
    budget = float(edges or graphs * mean_edges)
    batches = np.ceil(total / (EVEN * budget)) if edges else max(1, round(len(sizes) / graphs))
    even = total / (EVEN * max(batches, 1))
    held = min(_ceil(min(even, budget) if edges else even, 8), _ceil(total, 8))
    triplets = 0 if sizes.triplets is None else _ceil(TRIPLET_ROOM * graphs * float(sizes.triplets.mean()), 64)
    return GraphShape(
        atoms=min(_ceil(ROOM * graphs * float(sizes.atoms.mean()), 8), int(sizes.atoms.sum())) + 1,
        edges=max(held, 8),
        graphs=min(2 * graphs, len(sizes)) + 1,
        triplets=triplets,
    )


def _larger_limits(sizes: Sizes, usual: GraphShape) -> list[float]:
    """Most edges of the structures that each larger shape is made for, in steps of about two; the last holds all."""
    beyond = sizes.edges[~fits(sizes, usual)]
    if not len(beyond):
        return []
    largest = float(max(beyond.max(), usual.edges))
    steps = min(LARGER_SHAPES, max(1, int(np.ceil(np.log2(largest / usual.edges)))))
    limits: list[float] = []
    below = float(usual.edges)
    for step in range(1, steps):
        limit = usual.edges * (largest / usual.edges) ** (step / steps)
        own = beyond[(beyond > below) & (beyond <= limit)]
        if own.sum() > WORTH_A_SHAPE * sizes.edges.sum():
            limits.append(float(own.max()))
            below = limit
    return [*limits, largest]


def _grown(smaller: GraphShape, sizes: Sizes, held: Bool[np.ndarray, " structures"]) -> GraphShape:
    """A shape in which each of the structures fits alone, and no smaller one than before."""
    triplets = 0 if sizes.triplets is None else int(sizes.triplets[held].max())
    return GraphShape(
        atoms=max(_ceil(float(sizes.atoms[held].max()), 8) + 1, smaller.atoms),
        edges=max(_ceil(float(sizes.edges[held].max()), 8), smaller.edges),
        graphs=smaller.graphs,
        triplets=max(_ceil(float(triplets), 64), smaller.triplets),
    )


def plan_epoch(sizes: Sizes, shapes: tuple[GraphShape, ...], *, seed: int, epoch: int) -> list[PlannedBatch]:
    """The batches of one epoch: every structure once, in an order drawn from (seed, epoch).

    To go on in the middle of an epoch, make the plan anew and leave out what is done.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(sizes))
    batches = _packed(sizes, order, shapes=shapes)
    return [batches[place] for place in generator.permutation(len(batches))]


def plan_in_order(sizes: Sizes, shapes: tuple[GraphShape, ...]) -> list[PlannedBatch]:
    """Batches that hold every structure once, without any shuffling: for evaluation."""
    return _packed(sizes, np.arange(len(sizes)), shapes=shapes)


def fill_of(sizes: Sizes, plan: list[PlannedBatch]) -> float:
    """The share of the planned batches' edges that are no padding."""
    real = sum(int(sizes.edges[planned.members].sum()) for planned in plan)
    return real / max(1, sum(planned.shape.edges for planned in plan))


def _packed(sizes: Sizes, order: Places, *, shapes: tuple[GraphShape, ...]) -> list[PlannedBatch]:
    """Windows of the order, each as large as WINDOW usual bins; what finds no room in its bins waits for the next."""
    done: list[PlannedBatch] = []
    table = sizes.table
    left = order
    while len(left):
        edges = np.cumsum(table[left, 0])
        taken = max(1, int(np.searchsorted(edges, FILL * WINDOW * shapes[0].edges, "right")))
        window, rest = left[:taken], left[taken:]
        bins, without_room = fill_bins(table, window, shapes=shapes, fill=FILL, all_of_them=not len(rest))
        done += [_planned(bin) for bin in bins]
        left = np.concatenate([without_room, rest])
    return done


def _planned(bin: Bin) -> PlannedBatch:
    return PlannedBatch(members=np.array(bin.members, dtype=np.int64), shape=bin.shape)


def fits(sizes: Sizes, shape: GraphShape) -> Bool[np.ndarray, " structures"]:
    """Which structures fit the shape alone."""
    found: Bool[np.ndarray, " structures"] = np.all(sizes.table <= np.array(shape.capacity), axis=1)
    return found


def _ceil(value: float, step: int) -> int:
    return int(-(-value // step)) * step


def group_by_devices(plan: list[PlannedBatch], devices: int) -> list[tuple[PlannedBatch, ...]]:
    """The planned batches in groups that run side by side, one for each device; all of a group have one shape.

    Nothing is dropped: a group may be shorter than the number of devices.
    """
    groups: list[list[PlannedBatch]] = []
    open_groups: dict[GraphShape, list[PlannedBatch]] = {}
    for planned in plan:
        group = open_groups.get(planned.shape)
        if group is None or len(group) == devices:
            group = open_groups[planned.shape] = []
            groups.append(group)
        group.append(planned)
    return [tuple(group) for group in groups]
