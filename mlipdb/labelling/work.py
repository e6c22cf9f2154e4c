"""Asks a teacher for what tasks want, batch by batch; the same here and on a worker."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from mlipdb.errors import LabelError
from mlipdb.labelling.batches import Batcher, Task, pack
from mlipdb.labelling.teacher import LabelRequest, Teacher
from mlipdb.labels import Label, check_label

REASONS = 10  # that are kept to be shown


@runtime_checkable
class Sink(Protocol):
    """Takes what became of each task."""

    def add(self, task: Task, label: Label) -> None:
        """Take a finished label."""
        ...

    def add_failure(self, task: Task, reason: str) -> None:
        """Take the reason why there is no label."""
        ...


@dataclass
class Tally:
    """What was done: structures labelled and failed, new Hessian rows, the first reasons as (structure id, reason)."""

    labelled: int = 0
    failed: int = 0
    rows: int = 0
    reasons: list[tuple[int, str]] = field(default_factory=list)

    def count_failure(self, structure_id: int, reason: str) -> None:
        """Count a structure that could not be labelled."""
        self.failed += 1
        if len(self.reasons) < REASONS:
            self.reasons.append((structure_id, reason))

    def add(self, other: "Tally") -> None:
        """Count what was done elsewhere."""
        self.labelled += other.labelled
        self.failed += other.failed
        self.rows += other.rows
        self.reasons = [*self.reasons, *other.reasons][:REASONS]


class Labeller:
    """Labels tasks with a teacher. A structure that cannot be labelled never costs another its label."""

    def __init__(self, teacher: Teacher, sink: Sink, *, batcher: Batcher, pseudo: bool = False) -> None:
        self.tally = Tally()
        self._teacher = teacher
        self._sink = sink
        self._batcher = batcher
        self._pseudo = pseudo

    def work(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Label every task; yields after each batch."""
        for batch in self._batcher.batches(self._measured(tasks)):
            self._label_batch(batch)
            yield

    def _measured(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Tasks with the edges of their graphs; one with a foreign element fails here."""
        for task in tasks:
            try:
                self._teacher.info.check_elements(task.structure)
                edges = self._teacher.edges(task.structure)
            except LabelError as error:
                self._fail(task, str(error))
                continue
            yield replace(task, edges=edges)

    def _label_batch(self, batch: list[Task]) -> None:
        """Ask the teacher; a batch that it refuses is halved until the structure at fault is alone."""
        request = LabelRequest(base=batch[0].base, hessian_row_numbers=[task.rows for task in batch])
        try:
            labels = self._teacher.label([task.structure for task in batch], request)
            if len(labels) != len(batch):
                raise LabelError(f"{self._teacher.info.name} gave {len(labels)} labels for {len(batch)} structures")
        except LabelError as error:
            self._label_halves(batch, str(error))
        except MemoryError as error:
            self._label_smaller(batch, f"out of memory: {error}")
        else:
            self._batcher.fitted()
            for task, label in zip(batch, labels, strict=True):
                self._take(task, label)

    def _label_halves(self, batch: list[Task], reason: str) -> None:
        if len(batch) == 1:
            self._fail(batch[0], reason)
            return
        middle = len(batch) // 2
        self._label_batch(batch[:middle])
        self._label_batch(batch[middle:])

    def _label_smaller(self, batch: list[Task], reason: str) -> None:
        if len(batch) == 1:
            self._fail(batch[0], reason)
            return
        self._batcher.did_not_fit(batch)
        parts = pack(batch, self._batcher.now)
        if len(parts) == 1:
            self._label_halves(batch, reason)
            return
        for part in parts:
            self._label_batch(part)

    def _take(self, task: Task, label: Label) -> None:
        try:
            check_label(label, natoms=len(task.structure), pbc=task.structure.pbc)
            _check_answer(task, label, pseudo=self._pseudo)
        except LabelError as error:
            self._fail(task, str(error))
            return
        self.tally.labelled += 1
        self.tally.rows += len(task.rows)
        self._sink.add(task, label)

    def _fail(self, task: Task, reason: str) -> None:
        self.tally.count_failure(task.id, reason)
        self._sink.add_failure(task, reason)


def _check_answer(task: Task, label: Label, *, pseudo: bool) -> None:
    """Raise LabelError when the teacher did not give what it was asked for."""
    if task.base and (label.energy_uncorrected is None or label.forces is None):
        raise LabelError("the teacher gave no energy or no forces")
    if task.base and pseudo and label.stress is None and all(task.structure.pbc):
        raise LabelError("the teacher gave no stress, and a pseudo-label is whole or not at all")
    given = [] if label.hessian_row_numbers is None else label.hessian_row_numbers.tolist()
    if given != task.rows.tolist():
        raise LabelError(f"asked for Hessian rows {task.rows.tolist()}, the teacher gave {given}")
