"""How structures are put into batches: by atoms and edges, full ones, so that few padded shapes occur."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from jaxtyping import Int32

from mlipdb.structures import Structure

WINDOW = 512  # structures among which batches are packed: enough to fill them, few enough to hold


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """The most that one batch may hold. A structure that is larger alone is a batch by itself."""

    structures: int = 64
    atoms: int = 1024
    edges: int = 16384

    def halved(self) -> "BatchLimits":
        """Half of everything, at least one."""
        return BatchLimits(
            structures=max(1, self.structures // 2), atoms=max(1, self.atoms // 2), edges=max(1, self.edges // 2)
        )


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
    """Packs tasks into batches; limits may be lowered while it runs."""

    limits: BatchLimits
    fill: float = 0.8  # a batch less full than this waits for the next window
    _waiting: list[Task] = field(default_factory=list)

    def batches(self, tasks: Iterable[Task]) -> Iterator[list[Task]]:
        """Every task in one batch; those that are far from full come last."""
        stream = iter(tasks)
        while window := list(islice(stream, max(1, WINDOW - len(self._waiting)))):
            bins = pack([*self._waiting, *window], self.limits)
            full = [tasks for tasks in bins if self._is_full(tasks)]
            self._waiting = [task for tasks in bins if not self._is_full(tasks) for task in tasks]
            if len(self._waiting) >= WINDOW:
                full, self._waiting = bins, []
            yield from full
        leftover, self._waiting = self._waiting, []
        yield from pack(leftover, self.limits)

    def halve(self) -> None:
        """Make later batches half as large, after one did not fit into memory."""
        self.limits = self.limits.halved()

    def _is_full(self, tasks: list[Task]) -> bool:
        limits = self.limits
        return (
            len(tasks) >= self.fill * limits.structures
            or sum(task.edges for task in tasks) >= self.fill * limits.edges
            or sum(len(task.structure) for task in tasks) >= self.fill * limits.atoms
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
