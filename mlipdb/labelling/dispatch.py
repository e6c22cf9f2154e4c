"""Hands work to an executor and stores what comes back: every structure is with one worker at a time."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from mlipdb.errors import CorruptError, LabelError, MlipdbError, WorkerLostError
from mlipdb.labelling.batches import Task
from mlipdb.labelling.options import Flush
from mlipdb.labelling.spool import Spool
from mlipdb.labelling.teacher import TeacherInfo
from mlipdb.labelling.unit import LoadTeacher, Manifest, WorkUnit, introduce, run_unit
from mlipdb.labelling.work import Tally
from mlipdb.records import NewLabel

FIRST_SIZE, SMALLEST = 32, 8  # structures in a unit before rates are known, and at the end of a run
LOST_IN_A_ROW = 10  # units lost with their workers, none done in between, before the run gives up
MEETINGS = 4  # workers that may be lost before one has said which teacher it has
PATIENCE = 5.0  # seconds between looks at the clock


@dataclass(frozen=True, eq=False)
class _Flight:
    """A unit that a worker has, and how many workers were lost with it before."""

    unit: WorkUnit
    lost: int = 0


class Dispatcher:
    """Hands out units of a run, and adds up in tally what was done."""

    def __init__(
        self,
        executor: Executor,
        spool: Spool,
        *,
        form: WorkUnit,
        tally: Tally,
        sizes: "Sizes",
    ) -> None:
        self._executor = executor
        self._spool = spool
        self._form = form
        self._tally = tally
        self._sizes = sizes
        self._again: deque[_Flight] = deque()
        self._flying: dict[Future[Manifest], _Flight] = {}
        self._lost_in_a_row = 0

    def work(self, tasks: Iterator[Task], tick: Callable[[], None]) -> None:
        """Have all tasks labelled. What was finished is stored, whatever stops it."""
        try:
            while self._fill(tasks):
                self._collect()
                tick()
        except BaseException:
            for future in self._flying:
                with suppress(NotImplementedError):  # Parsl cannot
                    future.cancel()
            raise

    def _fill(self, tasks: Iterator[Task]) -> bool:
        """Hand out units until enough are under way; whether any is."""
        while len(self._flying) < 2 * self._sizes.workers:
            if self._again:
                flight = self._again.popleft()
            elif chosen := self._sizes.take(tasks):
                flight = _Flight(replace(self._form, tasks=chosen))
            else:
                break
            self._flying[self._executor.submit(run_unit, flight.unit)] = flight
        return bool(self._flying)

    def _collect(self) -> None:
        """Wait until a unit is back, and store what is there."""
        done, _ = wait(self._flying, timeout=PATIENCE, return_when=FIRST_COMPLETED)
        for future in done:
            flight = self._flying.pop(future)
            try:
                manifest = future.result()
                _check_complete(manifest, flight.unit)
                self._spool.register(manifest)
            except (CorruptError, WorkerLostError) as error:
                self._was_lost(flight, error)
            except MlipdbError:
                raise
            except Exception as error:  # noqa: BLE001 - executors have errors of their own for a worker that is lost
                self._was_lost(flight, error)
            else:
                self._took(manifest)

    def _took(self, manifest: Manifest) -> None:
        self._lost_in_a_row = 0
        self._tally.add(manifest.tally)
        if manifest.error is not None:
            raise LabelError(f"the teacher broke on worker {manifest.worker}:\n{manifest.error}")
        self._sizes.learn(manifest)

    def _was_lost(self, flight: _Flight, error: Exception) -> None:
        """Hand a unit out again; one that is lost twice in halves, until the structure at fault is alone."""
        tasks = flight.unit.tasks
        reason = f"{type(error).__name__}: {error}"
        if not flight.lost:
            self._again.append(replace(flight, lost=1))
        elif len(tasks) == 1:
            told = f"two workers were lost while they labelled this structure alone ({reason})"
            self._spool.add_failures([NewLabel(structure_id=tasks[0].id, part=tasks[0].part, label=None, reason=told)])
            self._tally.count_failure(tasks[0].id, told)
        else:
            middle = len(tasks) // 2
            for half in (tasks[:middle], tasks[middle:]):
                self._again.append(_Flight(replace(flight.unit, tasks=half)))
        self._lost_in_a_row += len(tasks) > 1
        if self._lost_in_a_row >= LOST_IN_A_ROW:
            raise LabelError(
                f"{LOST_IN_A_ROW} units of work in a row were lost with their workers (the last: {reason}); look at "
                f"the workers' logs and memory, then run the command again: what is labelled is kept"
            ) from error


class Sizes:
    """How many structures a unit has: what takes a worker about the seconds of a flush, less near the end."""

    def __init__(self, flush: Flush, *, workers: int, left: int) -> None:
        self.workers = workers
        self.left = left
        self._flush = flush
        self._size = float(min(FIRST_SIZE, flush.records))

    def take(self, tasks: Iterator[Task]) -> tuple[Task, ...]:
        """The tasks of the next unit; at most its share of what is left, so that workers end together."""
        share = max(SMALLEST, -(-self.left // (2 * self.workers)))
        most = max(1, min(int(self._size), share, self._flush.records))
        chosen: list[Task] = []
        room = self._flush.megabytes * 1e6
        for task in islice(tasks, most):
            chosen.append(task)
            room -= 24 * len(task.structure) * (2 + len(task.rows))
            if room <= 0:
                break
        self.left -= len(chosen)
        return tuple(chosen)

    def learn(self, manifest: Manifest) -> None:
        """Aim at the seconds of a flush, by the rate of a finished unit."""
        count = len(manifest.ids) + len(manifest.failures)
        fitting = count * self._flush.seconds / max(manifest.seconds, 1e-3)
        self._size = min(max(fitting, 1.0), 2 * self._size, float(self._flush.records))


def meet(executor: Executor, load: LoadTeacher) -> TeacherInfo:
    """Which teacher the workers have, asked of one of them."""
    for attempt in range(1, MEETINGS + 1):
        try:
            return executor.submit(introduce, load).result()
        except MlipdbError:
            raise
        except Exception as error:
            if attempt == MEETINGS:
                raise LabelError(
                    f"no worker could load the teacher ({type(error).__name__}: {error}); look at the workers' logs, "
                    f"and see that they have the same packages as this process"
                ) from error
    raise AssertionError("unreachable")


def _check_complete(manifest: Manifest, unit: WorkUnit) -> None:
    """Raise LabelError unless the worker answered for each structure of the unit once, or says what stopped it."""
    answered = [*manifest.ids, *(identity for identity, _, _ in manifest.failures)]
    asked = {task.id for task in unit.tasks}
    complete = manifest.error is not None or len(answered) == len(asked)
    if len(set(answered)) != len(answered) or not asked.issuperset(answered) or not complete:
        raise LabelError(
            f"worker {manifest.worker} was asked for {len(asked)} structures and answered for {len(answered)}, not the "
            f"same; its mlipdb is another version? Give all workers the version of the submitting process"
        )
