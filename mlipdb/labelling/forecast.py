"""What a labelling run would take, from a probe of a few structures; nothing is stored."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.labelling.batches import Batcher, BatchLimits, Task
from mlipdb.labelling.rows import RowCount
from mlipdb.labelling.runner import tasks_of
from mlipdb.labelling.state import LabelState, label_state
from mlipdb.labelling.teacher import Teacher
from mlipdb.labelling.work import Labeller
from mlipdb.labels import Label
from mlipdb.store.codec import Encoder

PROBE = 24  # structures
PAGES = 1.05  # bytes of a shard, whose records lie in pages, to those of its records
ROW_BYTES = 300  # of a label in the catalog, with its indexes


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run would do: structures to label, already and skipped ones, new Hessian rows, seconds, bytes on disk.

    probed structures were labelled to know, failed of them with reasons as (structure id, reason); the same part may
    fail in the run. first_seconds is what the probe took the first time, with what is compiled once.
    """

    structures: int
    already: int
    skipped: int
    rows: int
    seconds: float
    first_seconds: float
    bytes: int
    probed: int
    failed: int
    reasons: tuple[tuple[int, str], ...]


def forecast(
    db: Database,
    teacher: Teacher,
    *,
    ids: Int64[np.ndarray, " structures"],
    hessian_rows: RowCount = 0,
    retry_failed: bool = False,
    limits: BatchLimits | None = None,
    probe: int = PROBE,
) -> Forecast:
    """Label a few of the structures that a run would label, spread over sizes, and reckon up the rest.

    Time and disk are taken to grow as atoms times one and the rows of each structure; the probe is labelled twice,
    because the first time compiles.
    """
    mine = teacher.info.method()
    known = next((number for number, method in db.methods().items() if method == mine), -1)
    state = label_state(db, known, ids=np.unique(ids))
    incomplete = state.incomplete(hessian_rows)
    skipped = incomplete & state.failed & (not retry_failed)
    todo = np.flatnonzero(incomplete & ~skipped)
    rows = _rows_wanted(state, hessian_rows)[todo]
    chosen = _spread(todo, size=state.natoms[todo] * (1 + rows), count=probe)
    found = _Probe(teacher, list(tasks_of(db, state, todo=chosen, hessian_rows=hessian_rows)), limits)
    first, again = (found.run(), found.run()) if len(chosen) else (0.0, 0.0)
    probed = float(found.work) or 1.0
    work = float((state.natoms[todo] * (1 + rows)).sum())
    return Forecast(
        structures=len(todo),
        already=int((~incomplete).sum()),
        skipped=int(skipped.sum()),
        rows=int(rows.sum()),
        seconds=again * work / probed + max(0.0, first - again),
        first_seconds=first,
        bytes=int(found.bytes * work / probed * PAGES + ROW_BYTES * len(todo)),
        probed=len(chosen),
        failed=len(found.reasons),
        reasons=tuple(found.reasons[:10]),
    )


def _rows_wanted(state: LabelState, hessian_rows: RowCount) -> Int64[np.ndarray, " structures"]:
    want = 3 * state.natoms if hessian_rows == "all" else np.minimum(hessian_rows, 3 * state.natoms)
    missing: Int64[np.ndarray, " structures"] = np.maximum(want - state.rows, 0)
    return missing


def _spread(
    places: Int64[np.ndarray, " structures"], *, size: Int64[np.ndarray, " structures"], count: int
) -> Int64[np.ndarray, " chosen"]:
    """So many places, evenly over sizes."""
    if len(places) <= count:
        return places
    order = places[np.argsort(size, kind="stable")]
    middles = (np.arange(count) + 0.5) * len(places) / count
    return np.sort(order[middles.astype(np.int64)])


class _Probe:
    """Labels a few tasks, and measures time, bytes and work (atoms times one and the rows)."""

    def __init__(self, teacher: Teacher, tasks: Sequence[Task], limits: BatchLimits | None) -> None:
        self._teacher = teacher
        self._tasks = tasks
        self._limits = limits or teacher.batch_limits
        self.reasons: list[tuple[int, str]] = []
        self.work = sum(_work(task) for task in tasks)
        self.bytes = 0
        self._labels: list[Label] = []

    def run(self) -> float:
        """Seconds to label the tasks."""
        self.reasons, self._labels = [], []
        labeller = Labeller(self._teacher, self, batcher=Batcher(limits=self._limits))
        begun = time.perf_counter()
        for _ in labeller.work(self._tasks):
            pass
        seconds = time.perf_counter() - begun
        self.bytes = sum(len(record.data) + 12 for record in Encoder().prepare([(None, one) for one in self._labels]))
        return seconds

    def add(self, task: Task, label: Label) -> None:
        """Take a finished label."""
        self._labels.append(label)

    def add_failure(self, task: Task, reason: str) -> None:
        """Take the reason why there is no label."""
        self.reasons.append((task.id, reason))


def _work(task: Task) -> int:
    return len(task.structure) * (1 + len(task.rows))
