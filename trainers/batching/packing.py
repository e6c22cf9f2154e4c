"""Which structures make a batch: bins of fixed shapes, filled evenly, the same for the same seed and epoch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from mlipdb.trainers.batching.pad import GraphShape

WINDOW = 32  # bins that are filled together; more mix sizes less and fill no better
FILL = 0.985  # of the edges of a window's bins; more leaves too many structures without room
ROOM = 1.5  # atoms of a bin over its mean need, so that edges, which cost, are what fills it

Places = Int64[np.ndarray, " _"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sizes:
    """Atoms, edges and, where they are listed, triplets of each structure of a part of the data."""

    atoms: Int64[np.ndarray, " structures"]
    edges: Int64[np.ndarray, " structures"]
    triplets: Int64[np.ndarray, " structures"] | None = None

    def __len__(self) -> int:
        return len(self.atoms)


@dataclass(frozen=True, eq=False, kw_only=True)
class PlannedBatch:
    """Places (0-based, in the part of the data) of the structures of one batch, and the shape that it is padded to."""

    members: Int64[np.ndarray, " members"]
    shape: GraphShape


def choose_shapes(sizes: Sizes, *, graphs: int, edges: int = 0) -> tuple[GraphShape, ...]:
    """One shape for batches of about `graphs` structures (or `edges` edges), and one more where a structure exceeds it.

    Sizes include the padding atom and graph; every structure fits one of the shapes alone.
    """
    mean_edges = max(float(sizes.edges.mean()), 1.0)
    if edges:
        graphs = max(1, round(edges / mean_edges))
    graphs = min(graphs, len(sizes))
    usual = GraphShape(
        atoms=min(_ceil(ROOM * graphs * float(sizes.atoms.mean()), 8), int(sizes.atoms.sum())) + 1,
        edges=min(_ceil(float(edges or graphs * mean_edges), 64), _ceil(float(sizes.edges.sum()), 64)),
        graphs=min(2 * graphs, len(sizes)) + 1,
    )
    beyond = ~_fits(sizes, usual)
    if not beyond.any():
        return (usual,)
    large = GraphShape(
        atoms=max(_ceil(float(sizes.atoms[beyond].max()), 8) + 1, usual.atoms),
        edges=max(_ceil(float(sizes.edges[beyond].max()), 64), usual.edges),
        graphs=usual.graphs,
    )
    return (usual, large)


def plan_epoch(sizes: Sizes, shapes: tuple[GraphShape, ...], *, seed: int, epoch: int) -> list[PlannedBatch]:
    """The batches of one epoch: every structure once, in an order drawn from (seed, epoch)."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(sizes))
    batches = _packed(sizes, order, shapes=shapes)
    return [batches[place] for place in generator.permutation(len(batches))]


def plan_in_order(sizes: Sizes, shapes: tuple[GraphShape, ...]) -> list[PlannedBatch]:
    """Batches that hold every structure once, without any shuffling: for evaluation."""
    return _packed(sizes, np.arange(len(sizes)), shapes=shapes)


def _packed(sizes: Sizes, order: Places, *, shapes: tuple[GraphShape, ...]) -> list[PlannedBatch]:
    """Each structure goes to the smallest shape that holds it alone; each shape's structures are packed apart."""
    batches: list[PlannedBatch] = []
    left = order
    for shape in shapes:
        fits = _fits(sizes, shape)[left]
        batches += [PlannedBatch(members=bin, shape=shape) for bin in _bins(sizes, left[fits], shape=shape)]
        left = left[~fits]
    return batches


def _bins(sizes: Sizes, order: Places, *, shape: GraphShape) -> list[Places]:
    """Windows of the order, each as large as WINDOW bins hold; what finds no room in them waits for the next."""
    done: list[Places] = []
    left = order
    while len(left):
        taken = max(1, int(np.searchsorted(np.cumsum(sizes.edges[left]), FILL * WINDOW * shape.edges, "right")))
        window, rest = left[:taken], left[taken:]
        bins, without_room = _spread(
            sizes, window, shape=shape, bins=WINDOW if len(rest) else _needed(sizes, window, shape)
        )
        done += bins
        left = np.concatenate([without_room, rest])
    return done


def _needed(sizes: Sizes, window: Places, shape: GraphShape) -> int:
    """Bins that hold the structures if all goes well."""
    shares = (
        sizes.edges[window].sum() / max(shape.edges * FILL, 1),
        sizes.atoms[window].sum() / (shape.atoms - 1),
        len(window) / (shape.graphs - 1),
    )
    return max(1, int(np.ceil(max(shares))))


def _spread(sizes: Sizes, window: Places, *, shape: GraphShape, bins: int) -> tuple[list[Places], Places]:
    """The structures by falling edges, each into the bin with the most room, so that every bin gets large and small.

    Second, those that no bin has room for.
    """
    members: list[list[int]] = [[] for _ in range(bins)]
    room = np.tile(np.array([shape.edges, shape.atoms - 1, shape.graphs - 1]), (bins, 1))
    without_room: list[int] = []
    for place in window[np.argsort(-sizes.edges[window], kind="stable")].tolist():
        after = room - np.array([sizes.edges[place], sizes.atoms[place], 1])
        fitting = np.flatnonzero((after >= 0).all(axis=1))
        if not len(fitting):
            without_room.append(place)
            continue
        chosen = int(fitting[np.argmax(room[fitting, 0])])
        members[chosen].append(place)
        room[chosen] = after[chosen]
    filled = [np.array(bin, dtype=np.int64) for bin in members if bin]
    return filled, np.array(without_room, dtype=np.int64)


def _fits(sizes: Sizes, shape: GraphShape) -> Bool[np.ndarray, " structures"]:
    return (sizes.atoms <= shape.atoms - 1) & (sizes.edges <= shape.edges)


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
