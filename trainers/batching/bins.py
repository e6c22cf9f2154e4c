"""Bins: structures of a window put into batches of fixed room, so that all are nearly full and alike."""

import heapq
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64

from mlipdb.trainers.batching.pad import GraphShape

LEFT = 0.01  # of the edges of a window, which may wait for the next before bins are filled in another way

Places = Int64[np.ndarray, " _"]


@dataclass(kw_only=True)
class Bin:
    """A batch that is being filled: what is in it, and the room left for edges, atoms, graphs and triplets."""

    shape: GraphShape
    members: list[int] = field(default_factory=list)
    room: list[int] = field(default_factory=list)

    @staticmethod
    def empty(shape: GraphShape) -> "Bin":
        """A bin with all its room."""
        return Bin(shape=shape, room=list(shape.capacity))

    def holds(self, need: list[int]) -> bool:
        """Whether there is room for that much more."""
        edges, atoms, graphs, triplets = self.room
        return need[0] <= edges and need[1] <= atoms and need[2] <= graphs and need[3] <= triplets

    def put(self, place: int, need: list[int]) -> None:
        """Take the room."""
        self.members.append(place)
        self.room = [left - taken for left, taken in zip(self.room, need, strict=True)]


def fill_bins(
    table: Int64[np.ndarray, "structures 4"],
    window: Places,
    *,
    shapes: tuple[GraphShape, ...],
    fill: float,
    all_of_them: bool,
) -> tuple[list[Bin], Places]:
    """Bins for the structures of the window, and those that no bin has room for: none when all_of_them are wanted.

    Structures come by falling size. One that exceeds the first shape goes where it fits best, or opens the smallest
    bin that holds it; the others share the room left there and in bins of the first shape, each going where most room
    is, so that every bin gets large and small ones, unless bins are so small that this wastes too much.
    """
    usual = np.array(shapes[0].capacity)
    order = window[np.argsort(-(table[window] / np.maximum(usual, 1)).max(axis=1), kind="stable")]
    beyond = (table[order] > usual).any(axis=1)
    large = _opened(table, order[beyond], shapes=shapes)
    ordinary = order[~beyond]
    room = np.array([bin.room for bin in large]).reshape(-1, 4).sum(axis=0)
    shares = np.maximum(table[ordinary].sum(axis=0) - fill * room, 0) / np.maximum(usual, 1)
    shares[0] /= fill
    count = int(np.ceil(shares.max() - 1e-9)) if all_of_them else max(1, int(shares.max()))
    while True:
        bins, without_room = _fullest(table, ordinary, [*large, *(Bin.empty(shapes[0]) for _ in range(count))])
        if not (all_of_them and len(without_room)):
            return [bin for bin in bins if bin.members], without_room
        count += 1


def _fullest(table: Int64[np.ndarray, "structures 4"], order: Places, empty: list[Bin]) -> tuple[list[Bin], Places]:
    """The bins filled evenly, or, where that leaves more than LEFT of the edges, tightly if that leaves fewer."""
    even = [_copy(bin) for bin in empty]
    without_room = _spread(table, order, even)
    if table[without_room, 0].sum() <= LEFT * table[order, 0].sum():
        return even, without_room
    tight = [_copy(bin) for bin in empty]
    still_without = _squeeze(table, order, tight)
    if table[still_without, 0].sum() < table[without_room, 0].sum():
        return tight, still_without
    return even, without_room


def _copy(bin: Bin) -> Bin:
    return Bin(shape=bin.shape, members=list(bin.members), room=list(bin.room))


def _opened(table: Int64[np.ndarray, "structures 4"], order: Places, *, shapes: tuple[GraphShape, ...]) -> list[Bin]:
    """Bins of the larger shapes for structures that need them, each put where the fewest edges stay free."""
    bins: list[Bin] = []
    for place, need in zip(order.tolist(), table[order].tolist(), strict=True):
        chosen = _best(bins, need)
        if chosen is None:
            chosen = Bin.empty(next(shape for shape in shapes if Bin.empty(shape).holds(need)))
            bins.append(chosen)
        chosen.put(place, need)
    return bins


def _best(bins: list[Bin], need: list[int]) -> Bin | None:
    """The bin in which the fewest edges stay free."""
    return min((bin for bin in bins if bin.holds(need)), key=lambda bin: bin.room[0], default=None)


def _squeeze(table: Int64[np.ndarray, "structures 4"], order: Places, bins: list[Bin]) -> Places:
    """Each structure into the bin where it fits best; those that none holds."""
    without_room: list[int] = []
    for place, need in zip(order.tolist(), table[order].tolist(), strict=True):
        chosen = _best(bins, need)
        if chosen is None:
            without_room.append(place)
        else:
            chosen.put(place, need)
    return np.array(without_room, dtype=np.int64)


def _spread(table: Int64[np.ndarray, "structures 4"], order: Places, bins: list[Bin]) -> Places:
    """Each structure into the bin with most room for edges that holds it; those that none holds."""
    heap = [(-bin.room[0], number) for number, bin in enumerate(bins)]
    heapq.heapify(heap)
    without_room: list[int] = []
    for place, need in zip(order.tolist(), table[order].tolist(), strict=True):
        aside = []
        while heap and not bins[heap[0][1]].holds(need) and -heap[0][0] >= need[0]:
            aside.append(heapq.heappop(heap))  # room for its edges, but not for its atoms
        if heap and -heap[0][0] >= need[0]:
            number = heap[0][1]
            bins[number].put(place, need)
            heapq.heapreplace(heap, (-bins[number].room[0], number))
        else:
            without_room.append(place)
        for entry in aside:
            heapq.heappush(heap, entry)
    return np.array(without_room, dtype=np.int64)
