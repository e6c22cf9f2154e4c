"""The labelling runner: asks a teacher for what is missing of each structure, and stores it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.errors import LabelError
from mlipdb.labelling.batches import Batcher, BatchLimits, Task
from mlipdb.labelling.rows import RowCount, row_target, wanted_rows
from mlipdb.labelling.state import LabelState, label_state
from mlipdb.labelling.teacher import LabelRequest, Teacher
from mlipdb.labelling.writer import Flush, LabelWriter
from mlipdb.labels import Label, Method, check_label

READ_AHEAD = 256  # structures read from the shards at a time


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a labelling run is: structures of total that are dealt with, failures and Hessian rows among them.

    seconds is the time since the first batch was begun.
    """

    done: int
    total: int
    failed: int
    rows: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """What is left at the rate so far; None before the first batch is done."""
        return (self.total - self.done) * self.seconds / self.done if self.done else None


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """What a labelling run did.

    labelled structures got something new, already had all that was asked for, failed gave a reason instead, skipped
    failed in an earlier run and were not retried. rows counts new Hessian rows. reasons holds the first few failures
    as (structure id, reason). other_methods are stored methods with the same teacher name but other weights, package
    version or arithmetic: their labels are kept apart.
    """

    method: Method
    method_id: int
    requested: int
    labelled: int
    already: int
    failed: int
    skipped: int
    rows: int
    seconds: float
    reasons: tuple[tuple[int, str], ...]
    other_methods: tuple[Method, ...]


def label(
    db: Database,
    teacher: Teacher,
    *,
    ids: Int64[np.ndarray, " structures"],
    hessian_rows: RowCount = 0,
    limits: BatchLimits | None = None,
    flush: Flush | None = None,
    retry_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> LabelReport:
    """Label these structures and store the labels; what is stored already is not computed again.

    hessian_rows is the number of random rows that each structure shall have in the end, or "all". A run that was
    interrupted is continued by calling again. A structure that cannot be labelled becomes a failed row with its
    reason; retry_failed tries those of earlier runs again. limits are the teacher's own unless given.
    """
    if hessian_rows != "all" and hessian_rows < 0:
        raise LabelError(f"hessian_rows is {hessian_rows}; give a number from 0 up, or 'all'")
    method = teacher.info.method()
    method_id = db.method_id(method)
    state = label_state(db, method_id, ids=np.unique(ids))
    incomplete = state.incomplete(hessian_rows)
    skipped = incomplete & state.failed & (not retry_failed)
    todo = np.flatnonzero(incomplete & ~skipped)
    run = _Run(teacher, LabelWriter(db, method_id, flush=flush or Flush()), total=len(todo), progress=progress)
    run.work(_tasks(db, run, state, todo=todo, hessian_rows=hessian_rows), limits=limits or teacher.batch_limits)
    return LabelReport(
        method=method,
        method_id=method_id,
        requested=len(state.ids),
        labelled=run.labelled,
        already=int((~incomplete).sum()),
        failed=run.failed,
        skipped=int(skipped.sum()),
        rows=run.rows,
        seconds=run.seconds,
        reasons=tuple(run.reasons),
        other_methods=_other_methods(db, method_id, method),
    )


def _other_methods(db: Database, method_id: int, method: Method) -> tuple[Method, ...]:
    others = (other for key, other in db.methods().items() if key != method_id)
    return tuple(other for other in others if other.kind == method.kind and other.name == method.name)


class _Run:
    """Counts, the writer and the clock of one call of label."""

    def __init__(
        self, teacher: Teacher, writer: LabelWriter, *, total: int, progress: Callable[[Progress], None] | None
    ) -> None:
        self.teacher = teacher
        self.writer = writer
        self.total = total
        self.labelled = self.failed = self.rows = 0
        self.reasons: list[tuple[int, str]] = []
        self.seconds = 0.0
        self._progress = progress
        self._begun = time.monotonic()

    def work(self, tasks: Iterator[Task], *, limits: BatchLimits) -> None:
        """Label every task. Whatever stops it, labels that are finished are stored first."""
        batcher = Batcher(limits=limits)
        with self.writer:
            for batch in batcher.batches(tasks):
                self._label_batch(batch, batcher)
                self._tick()
        self._tick()

    def fail(self, task: Task, reason: str) -> None:
        """Store that a structure could not be labelled."""
        self.failed += 1
        if len(self.reasons) < 10:
            self.reasons.append((task.id, reason))
        self.writer.add_failure(task, reason)

    def _label_batch(self, batch: list[Task], batcher: Batcher) -> None:
        """Ask the teacher; a batch that it refuses is halved until the structure at fault is alone."""
        request = LabelRequest(base=batch[0].base, hessian_row_numbers=[task.rows for task in batch])
        try:
            labels = self.teacher.label([task.structure for task in batch], request)
        except (LabelError, MemoryError) as error:
            if isinstance(error, MemoryError) and len(batch) > 1:
                batcher.halve()
            self._label_parts(batch, batcher, error)
            return
        for task, result in zip(batch, labels, strict=True):
            self._take(task, result)

    def _label_parts(self, batch: list[Task], batcher: Batcher, error: Exception) -> None:
        if len(batch) == 1:
            reason = f"out of memory: {error}" if isinstance(error, MemoryError) else str(error)
            self.fail(batch[0], reason)
            return
        middle = len(batch) // 2
        self._label_batch(batch[:middle], batcher)
        self._label_batch(batch[middle:], batcher)

    def _take(self, task: Task, result: Label) -> None:
        try:
            check_label(result, natoms=len(task.structure), pbc=task.structure.pbc)
            _check_answer(task, result)
        except LabelError as error:
            self.fail(task, str(error))
            return
        self.labelled += 1
        self.rows += len(task.rows)
        self.writer.add(task, result)

    def _tick(self) -> None:
        self.seconds = time.monotonic() - self._begun
        if self._progress is not None:
            done = self.labelled + self.failed
            self._progress(
                Progress(done=done, total=self.total, failed=self.failed, rows=self.rows, seconds=self.seconds)
            )


def _check_answer(task: Task, result: Label) -> None:
    """Raise LabelError when the teacher did not give what it was asked for."""
    if task.base and (result.energy_uncorrected is None or result.forces is None):
        raise LabelError("the teacher gave no energy or no forces")
    given = [] if result.hessian_row_numbers is None else result.hessian_row_numbers.tolist()
    if given != task.rows.tolist():
        raise LabelError(f"asked for Hessian rows {task.rows.tolist()}, the teacher gave {given}")


def _tasks(
    db: Database, run: _Run, state: LabelState, *, todo: Sequence[int] | np.ndarray, hessian_rows: RowCount
) -> Iterator[Task]:
    """What to do for each structure that is not complete; one with a foreign element fails here."""
    for start in range(0, len(todo), READ_AHEAD):
        places = todo[start : start + READ_AHEAD]
        for place, structure in zip(places, db.structures(state.ids[places].tolist()), strict=True):
            want = row_target(len(structure), hessian_rows)
            rows = wanted_rows(structure, have=int(state.rows[place]), want=want)
            task = Task(
                id=int(state.ids[place]),
                structure=structure,
                base=not state.base[place],
                rows=rows,
                part=int(state.part[place]),
                edges=0,
            )
            try:
                run.teacher.info.check_elements(structure)
            except LabelError as error:
                run.fail(task, str(error))
                continue
            yield replace(task, edges=run.teacher.edges(structure))
