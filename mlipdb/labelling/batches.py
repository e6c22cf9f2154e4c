"""How structures are put into batches: by atoms and edges, full ones, so that few padded shapes occur."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from jaxtyping import Int32

from mlipdb.structures import Structure

WINDOW = 512  # structures among which batches are packed: enough to fill them, few enough to hold
FIRST_PATIENCE, MOST_PATIENCE = 16, 1024  # batches that fit before larger ones are tried again


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """The most that one batch may hold. A structure that is larger alone is a batch by itself."""

    structures: int = 64
    atoms: int = 1024
    edges: int = 16384

    def halved(self, times: int = 1) -> "BatchLimits":
        """Half of everything, so many times; at least one."""
        return BatchLimits(
            structures=max(1, self.structures >> times),
            atoms=max(1, self.atoms >> times),
            edges=max(1, self.edges >> times),
        )

    def scaled(self, edges: int | None) -> "BatchLimits":
        """The same for so many edges, atoms in proportion; without a number as they are."""
        if edges is None:
            return self
        return BatchLimits(structures=self.structures, atoms=max(1, self.atoms * edges // self.edges), edges=edges)


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """One structure to label: what of it (base, which rows), as which part, and how many edges its graph has."""

    id: int
    structure: Structure
    base: bool
    rows: Int32[np.ndarray, " rows"]
    part: int
    edges: int


@dataclass(kw_only=True)
class Batcher:
    """Packs tasks into batches. A batch that does not fit into memory makes later ones smaller, for some time.

    Sizes are the limits halved a few times and no others, so that a teacher that compiles for a shape meets few of
    them. After `patience` batches that fit, the next are twice as large; if that was wrong, patience doubles.
    """

    limits: BatchLimits
    fill: float = 0.8  # a batch less full than this waits for the next window
    patience: int = FIRST_PATIENCE
    _halvings: int = 0
    _fitting: int = 0
    _grew: bool = False
    _waiting: list[Task] = field(default_factory=list)

    @property
    def now(self) -> BatchLimits:
        """The limits after the halvings that memory asked for."""
        return self.limits.halved(self._halvings)

    @property
    def holds_tasks(self) -> bool:
        """Whether a stream was left before its end."""
        return bool(self._waiting)

    def batches(self, tasks: Iterable[Task]) -> Iterator[list[Task]]:
        """Every task in one batch; those that are far from full come last."""
        stream = iter(tasks)
        while window := list(islice(stream, max(1, WINDOW - len(self._waiting)))):
            self._waiting += window
            yield from self._packed(everything=False)
            if len(self._waiting) >= WINDOW:
                yield from self._packed(everything=True)
        yield from self._packed(everything=True)

    def did_not_fit(self, batch: Sequence[Task]) -> None:
        """Make later batches at most half as large as this one, for which the memory was too small."""
        if self._grew and self._fitting < self.patience:
            self.patience = min(2 * self.patience, MOST_PATIENCE)
        half = _load(batch, self.limits) / 2
        while self._load_of_limits() > half and self.now != self.now.halved():
            self._halvings += 1
        self._fitting, self._grew = 0, False

    def fitted(self) -> None:
        """Count a batch for which the memory was enough."""
        self._fitting += 1
        if self._halvings and self._fitting >= self.patience:
            self._halvings -= 1
            self._fitting, self._grew = 0, True

    def _load_of_limits(self) -> float:
        return float(0.5**self._halvings)

    def _packed(self, *, everything: bool) -> Iterator[list[Task]]:
        """Full batches of what waits, or all; packed anew whenever the limits have changed."""
        while True:
            limits = self.now
            bins = pack(self._waiting, limits)
            ready = [tasks for tasks in bins if everything or self._is_full(tasks)]
            kept = [tasks for tasks in bins if not (everything or self._is_full(tasks))]
            while ready and limits == self.now:
                batch = ready.pop(0)
                self._waiting = [task for tasks in (*ready, *kept) for task in tasks]
                yield batch
            if not ready:
                return

    def _is_full(self, tasks: list[Task]) -> bool:
        return _load(tasks, self.now) >= self.fill


def _load(tasks: Sequence[Task], limits: BatchLimits) -> float:
    """How much of the limits a batch takes: 1 where it just fits."""
    return max(
        len(tasks) / limits.structures,
        sum(len(task.structure) for task in tasks) / limits.atoms,
        sum(task.edges for task in tasks) / limits.edges,
    )


@dataclass
class _Bin:
    tasks: list[Task]
    room: BatchLimits

    def takes(self, task: Task) -> bool:
        """Whether it fits, and asks for about as many rows: a batch costs as much as its longest list of rows."""
        first, room = self.tasks[0], self.room
        similar = task.base == first.base and 2 * len(task.rows) >= len(first.rows)
        return similar and room.structures >= 1 and room.atoms >= len(task.structure) and room.edges >= task.edges

    def add(self, task: Task) -> None:
        room = self.room
        self.tasks.append(task)
        self.room = replace(
            room,
            structures=room.structures - 1,
            atoms=room.atoms - len(task.structure),
            edges=room.edges - task.edges,
        )


def pack(tasks: Iterable[Task], limits: BatchLimits) -> list[list[Task]]:
    """Batches by first fit, largest first: every task in exactly one, none above the limits unless it is alone."""
    bins: list[_Bin] = []
    for task in sorted(tasks, key=lambda task: (task.base, len(task.rows), task.edges, task.id), reverse=True):
        chosen = next((candidate for candidate in bins if candidate.takes(task)), None)
        if chosen is None:
            chosen = _Bin([], limits)
            bins.append(chosen)
        chosen.add(task)
    return [candidate.tasks for candidate in bins]
