"""The labelling runner: asks a teacher for what is missing of each structure, and stores it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.errors import LabelError
from mlipdb.labelling.batches import Batcher, Task
from mlipdb.labelling.disagreement import DisagreementReport, refresh_disagreements
from mlipdb.labelling.dispatch import Dispatcher, Sizes, meet
from mlipdb.labelling.options import LabelOptions
from mlipdb.labelling.rows import RowCount, row_target, wanted_rows
from mlipdb.labelling.spool import Spool, adopt_leftovers
from mlipdb.labelling.state import LabelState, label_state
from mlipdb.labelling.teacher import Teacher, TeacherInfo
from mlipdb.labelling.unit import LoadTeacher, WorkUnit
from mlipdb.labelling.work import Labeller, Tally
from mlipdb.labelling.writer import LabelWriter
from mlipdb.labels import Method

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
    version or arithmetic: their labels are kept apart. disagreements were brought up to date with the labels.
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
    disagreements: tuple[DisagreementReport, ...] = ()


def label(
    db: Database,
    teacher: Teacher | LoadTeacher,
    *,
    ids: Int64[np.ndarray, " structures"],
    hessian_rows: RowCount = 0,
    retry_failed: bool = False,
    executor: Executor | None = None,
    options: LabelOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> LabelReport:
    """Label these structures and store the labels; what is stored already is not computed again.

    hessian_rows is the number of random rows that each structure shall have in the end, or "all". A run that was
    interrupted is continued by calling again. A structure that cannot be labelled becomes a failed row with its
    reason; retry_failed tries those of earlier runs again. With an executor the work is done by its workers, each of
    which loads the teacher: then give how, such as NamedTeacher(name=...), not a teacher.
    """
    if hessian_rows != "all" and hessian_rows < 0:
        raise LabelError(f"hessian_rows is {hessian_rows}; give a number from 0 up, or 'all'")
    chosen = options or LabelOptions()
    adopt_leftovers(db)
    work = _here(teacher, chosen) if executor is None else _elsewhere(teacher, executor, chosen)
    method = work.info.method()
    method_id = db.method_id(method)
    state = label_state(db, method_id, ids=np.unique(ids))
    partial = sorted(state.lacking) if chosen.pseudo else []
    incomplete = state.incomplete(hessian_rows)
    incomplete[partial] = False
    skipped = incomplete & state.failed & (not retry_failed)
    todo = np.flatnonzero(incomplete & ~skipped)
    run = _Run(db, method_id, total=len(todo) + len(partial), progress=progress)
    work.do(run, tasks_of(db, state, todo=todo, hessian_rows=hessian_rows))
    for place in partial:
        run.tally.count_failure(int(state.ids[place]), _not_whole(state.lacking[place], method_id))
    run.tick()
    changed = refresh_disagreements(db, method_id=method_id)
    return LabelReport(
        method=method,
        method_id=method_id,
        requested=len(state.ids),
        labelled=run.tally.labelled,
        already=int((~incomplete).sum()) - len(partial),
        failed=run.tally.failed,
        skipped=int(skipped.sum()),
        rows=run.tally.rows,
        seconds=run.seconds,
        reasons=tuple(run.tally.reasons),
        other_methods=_other_methods(db, method_id, method),
        disagreements=changed,
    )


def _not_whole(lacking: tuple[str, ...], method_id: int) -> str:
    return (
        f"the label that is stored already has no {' and no '.join(lacking)}, and a pseudo-label is whole or not at "
        f"all; take it out of the subset, or drop the method with `mlipdb labels drop {method_id}` and label anew"
    )


def _other_methods(db: Database, method_id: int, method: Method) -> tuple[Method, ...]:
    others = (other for key, other in db.methods().items() if key != method_id)
    return tuple(other for other in others if other.kind == method.kind and other.name == method.name)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Which teacher labels, and what does it."""

    info: TeacherInfo
    do: Callable[["_Run", Iterator[Task]], None]


def _here(teacher: Teacher | LoadTeacher, options: LabelOptions) -> _Work:
    """Work in this process."""
    loaded = teacher if isinstance(teacher, Teacher) else teacher()

    def do(run: "_Run", tasks: Iterator[Task]) -> None:
        batcher = Batcher(limits=options.limits or loaded.batch_limits.scaled(options.batch_edges))
        with LabelWriter(run.db, run.method_id, flush=options.flush) as writer:
            labeller = Labeller(loaded, writer, batcher=batcher, pseudo=options.pseudo)
            run.tally = labeller.tally
            for _ in labeller.work(tasks):
                run.tick()

    return _Work(info=loaded.info, do=do)


def _elsewhere(teacher: Teacher | LoadTeacher, executor: Executor, options: LabelOptions) -> _Work:
    """Work by an executor's workers."""
    if isinstance(teacher, Teacher):
        raise LabelError(
            f"{teacher.info.name} is loaded in this process, and workers load their own: "
            f"give label() NamedTeacher(name={teacher.info.name!r}) when it has an executor"
        )
    info = meet(executor, teacher)

    def do(run: "_Run", tasks: Iterator[Task]) -> None:
        with Spool(run.db, method_id=run.method_id) as spool:
            form = WorkUnit(
                load=teacher,
                method=info.method(),
                uuid=run.db.uuid,
                spool=spool.visible,
                limits=options.limits,
                batch_edges=options.batch_edges,
                pseudo=options.pseudo,
            )
            sizes = Sizes(options.flush, workers=options.workers, left=run.total)
            Dispatcher(executor, spool, form=form, tally=run.tally, sizes=sizes).work(tasks, run.tick)

    return _Work(info=info, do=do)


class _Run:
    """The database, counts and the clock of one call of label."""

    def __init__(
        self, db: Database, method_id: int, *, total: int, progress: Callable[[Progress], None] | None
    ) -> None:
        self.db = db
        self.method_id = method_id
        self.total = total
        self.tally = Tally()
        self.seconds = 0.0
        self._progress = progress
        self._begun = time.monotonic()

    def tick(self) -> None:
        """Tell how far the run is."""
        self.seconds = time.monotonic() - self._begun
        if self._progress is not None:
            tally = self.tally
            done = tally.labelled + tally.failed
            self._progress(
                Progress(done=done, total=self.total, failed=tally.failed, rows=tally.rows, seconds=self.seconds)
            )


def tasks_of(
    db: Database, state: LabelState, *, todo: Int64[np.ndarray, " structures"], hessian_rows: RowCount
) -> Iterator[Task]:
    """What to do for each structure that is not complete."""
    for start in range(0, len(todo), READ_AHEAD):
        places = todo[start : start + READ_AHEAD]
        for place, structure in zip(places, db.structures(state.ids[places].tolist()), strict=True):
            want = row_target(len(structure), hessian_rows)
            yield Task(
                id=int(state.ids[place]),
                structure=structure,
                base=not state.base[place],
                rows=wanted_rows(structure, have=int(state.rows[place]), want=want),
                part=int(state.part[place]),
                edges=0,
            )
