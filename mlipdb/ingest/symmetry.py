"""Space groups of many structures, found in worker processes while the reader goes on."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from types import TracebackType

import moyopy

from mlipdb.ingest.symmetry_worker import Crystal, space_group_numbers
from mlipdb.records import SpaceGroup, SymmetryTool
from mlipdb.structures import Structure

SMALL = 2048  # structures that are faster here than processes are started
PATIENCE = 600.0  # seconds for a chunk; a search that takes longer hangs
Search = Callable[[Sequence[Crystal], float], list[int | None]]


@cache
def space_group_symbol(number: int) -> str:
    """Short Hermann-Mauguin symbol without spaces, such as ``P6_3/mmc``."""
    return str(moyopy.SpaceGroupType(number).hm_short).replace(" ", "")


class SymmetryFinder:
    """Finds space groups with moyopy. Use as a context: the worker processes end with it.

    A structure on which the search fails, crashes its process or hangs has no group; the others are not affected.
    The first few structures wait, so that a small ingest starts no processes at all.
    """

    def __init__(
        self,
        *,
        symprec: float = 1e-2,
        workers: int | None = None,
        search: Search = space_group_numbers,
        patience: float = PATIENCE,
    ) -> None:
        self.tool = SymmetryTool("moyopy", moyopy.__version__, symprec)
        self._workers = os.cpu_count() or 1 if workers is None else workers
        self._search = search
        self._patience = patience
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: list[SymmetryTask] = []
        self._seen = 0

    def __enter__(self) -> "SymmetryFinder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def submit(self, structures: Sequence[Structure]) -> "SymmetryTask":
        """Start the search for structures; task.result() waits for it."""
        task = SymmetryTask(self, structures)
        self._seen += len(structures)
        self._waiting.append(task)
        if self._workers > 0 and self._seen > SMALL:
            for waiting in self._waiting:
                waiting.future = self.start(waiting.crystals)
            self._waiting = []
        return task

    def start(self, crystals: Sequence[Crystal]) -> "Future[list[int | None]]":
        """Hand crystals to a worker process."""
        if self._pool is None:
            # Never fork: the parent may hold threads and locks.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._workers, mp_context=context)
        try:
            return self._pool.submit(self._search, crystals, self.tool.symprec)
        except BrokenProcessPool:  # noticed only now that a worker died
            self._stop()
            return self.start(crystals)

    def finish(self, task: "SymmetryTask") -> list[int | None]:
        """Numbers of a task; crystals of a chunk that killed or hung its worker are tried one by one."""
        if task.future is None:
            self._waiting = [waiting for waiting in self._waiting if waiting is not task]
            return self._search(task.crystals, self.tool.symprec)
        try:
            return task.future.result(self._patience)
        except (BrokenProcessPool, CancelledError, TimeoutError):
            return [self._alone(crystal) for crystal in task.crystals]

    def _alone(self, crystal: Crystal) -> int | None:
        for _ in range(2):  # the first failure may be another chunk's worker that died
            try:
                return self.start([crystal]).result(self._patience)[0]
            except (BrokenProcessPool, CancelledError):
                self._stop()
            except TimeoutError:
                self._stop()
                return None
        return None

    def _stop(self) -> None:
        """End the workers, hung ones too."""
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        self._pool = None


class SymmetryTask:
    """A search under way for some structures."""

    def __init__(self, finder: SymmetryFinder, structures: Sequence[Structure]) -> None:
        self.future: Future[list[int | None]] | None = None
        self._finder = finder
        self._periodic = [all(structure.pbc) for structure in structures]
        self.crystals: list[Crystal] = [(s.cell, s.positions, s.atomic_numbers) for s in structures if all(s.pbc)]

    def result(self) -> list[SpaceGroup | None]:
        """The group of each structure in order; None where it is not periodic in three directions or none was found."""
        found = iter(self._finder.finish(self) if self.crystals else [])
        numbers = [next(found) if periodic else None for periodic in self._periodic]
        return [None if number is None else SpaceGroup(number, space_group_symbol(number)) for number in numbers]
