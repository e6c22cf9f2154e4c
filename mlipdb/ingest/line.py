"""Blocks on their way through worker processes: handed in and taken out in file order, a bounded number of them."""

import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType

from mlipdb.ingest.blocks import Block
from mlipdb.ingest.process import WorkerDied, WorkerProcess
from mlipdb.ingest.symmetry import PATIENCE, find_groups_carefully
from mlipdb.ingest.work import Depth, Done, Task, Worker

SMALL = 4096  # records that are done here before processes are started
WAITING = 24  # blocks a process has in hand: enough to go on while the main process writes a shard
MOST_WAITING = 64
MOST_WORKERS = 8  # more than the main process can write for
BLOCK_PATIENCE = 600.0  # seconds for a block; work that takes longer hangs


def usual_workers() -> int:
    """Worker processes when nobody says how many: one for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS) if cores > 1 else 0


@dataclass(eq=False)
class _Place:
    """A task that was handed in and, later, its answer."""

    task: Task
    process: WorkerProcess | None = None
    done: Done | None = None


class Line:
    """Takes blocks in and gives them out again, done and in the same order. Use as a context.

    The first few blocks are done in this process, so that a small source starts no others; so are all blocks until
    the others have started. A block in which the search for space groups crashes or hangs its process is done again,
    crystal by crystal.
    """

    def __init__(
        self, worker: Worker, *, workers: int | None = None, patience: float = BLOCK_PATIENCE, small: int | None = None
    ) -> None:
        self._worker = worker
        self._wanted = usual_workers() if workers is None else workers
        self._patience = patience
        self._inside = SMALL if small is None else small  # records to do here
        self._places: deque[_Place] = deque()
        self._in_hand: dict[WorkerProcess, deque[_Place]] = {}  # what each process has not answered yet, oldest first

    def __enter__(self) -> "Line":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._in_hand:
            process.stop()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def full(self) -> bool:
        """Whether a block must be taken out before another one is handed in."""
        return len(self._places) >= max(min(len(self._in_hand) * WAITING, MOST_WAITING), 1)

    def running(self) -> list[WorkerProcess]:
        """The worker processes that have started up."""
        return [process for process in self._in_hand if process.ready()]

    def put(self, block: Block, depth: Depth) -> None:
        """Hand in a block."""
        self._places.append(self._begun(Task(block, depth)))

    def take(self) -> tuple[Done, Block]:
        """The oldest block and what came of it; waits for it.

        Raises WorkerDied where a process was ended from outside, or died without a search to blame.
        """
        place = self._places[0]
        while place.done is None:
            assert place.process is not None  # it was handed to one
            self._collect(place.process)
        self._places.popleft()
        return place.done, place.task.block

    def put_back(self, block: Block) -> None:
        """Hand in once more, as the oldest, a block that needs the whole work after all; so will those behind it."""
        self._places.appendleft(self._begun(Task(block, Depth.WHOLE)))
        for index, place in enumerate(self._places):
            if place.task.depth is not Depth.WHOLE:
                self._places[index] = self._begun(Task(place.task.block, Depth.WHOLE))

    def _begun(self, task: Task) -> _Place:
        """The task at a process with the fewest blocks in hand, or done here."""
        self._inside -= len(task.block)
        if self._wanted and self._inside < 0 and not self._in_hand:
            self._in_hand = {WorkerProcess(self._worker): deque() for _ in range(self._wanted)}
        try:
            ready = self.running()
        except WorkerDied as error:  # while it started
            raise _named(error, task.block) from error
        if not ready:
            return _Place(task, done=self._worker(task))
        process = min(ready, key=lambda process: len(self._in_hand[process]))
        return self._handed(_Place(task), process)

    def _handed(self, place: _Place, process: WorkerProcess) -> _Place:
        place.process, place.task = process, replace(place.task, block=place.task.block.slim())
        self._in_hand[process].append(place)
        with suppress(WorkerDied):  # met again, in its turn, when the answer is collected
            process.submit(place.task)
        return place

    def _collect(self, process: WorkerProcess) -> None:
        """Wait for a process's next answer."""
        waiting = self._in_hand[process]
        try:
            waiting[0].done = process.result(self._patience)
            waiting.popleft()
        except WorkerDied as error:
            culprit = waiting.popleft()
            self._replace(process)
            if error.killed or self._worker.symprec is None or culprit.task.depth is not Depth.WHOLE:
                raise _named(error, culprit.task.block) from error
            culprit.done = self._carefully(culprit.task)

    def _carefully(self, task: Task) -> Done:
        """Do a task here, but search for space groups in a process of its own, crystal by crystal."""
        worker = self._worker
        assert worker.symprec is not None  # the caller looked
        patience = min(self._patience, PATIENCE)
        careful = partial(find_groups_carefully, symprec=worker.symprec, search=worker.search, patience=patience)
        return worker.do(task, careful)

    def _replace(self, dead: WorkerProcess) -> None:
        """Start another process in a dead one's place and hand it what the dead one had in hand."""
        dead.stop()
        lost = self._in_hand.pop(dead)
        fresh = WorkerProcess(self._worker)
        self._in_hand[fresh] = deque()
        for place in lost:
            self._handed(place, fresh)


def _named(error: WorkerDied, block: Block) -> WorkerDied:
    return WorkerDied(
        f"{error}; it was at {block.file}, {block.location}. Everything before that is kept: repeat the command to go "
        "on, with fewer --workers if memory was short",
        exitcode=error.exitcode,
    )
