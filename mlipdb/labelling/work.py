"""Asks a teacher for what tasks want, batch by batch; the same here and on a worker."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from mlipdb.errors import LabelError, MlipdbError, TeacherError
from mlipdb.labelling.batches import Batcher, Task, pack
from mlipdb.labelling.teacher import LabelRequest, Teacher
from mlipdb.labels import Label, check_label
from mlipdb.structures import StructureError

REASONS = 10  # that are kept to be shown
MANY_SUSPECTS = 32  # structures with errors that say nothing of whose fault it is, before the teacher is looked at


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
    """Labels tasks with a teacher. A structure that cannot be labelled never costs another its label.

    An error that is not the teacher's own word on a structure may be the structure's fault or the teacher's: it is the
    structure's where the teacher labels another one, before or after; else it is raised.
    """

    def __init__(self, teacher: Teacher, sink: Sink, *, batcher: Batcher, pseudo: bool = False) -> None:
        self.tally = Tally()
        self._teacher = teacher
        self._sink = sink
        self._batcher = batcher
        self._pseudo = pseudo
        self._suspects: list[tuple[Task, Exception]] = []
        self._proven: Task | None = None  # the last one that the teacher labelled

    def work(self, tasks: Iterable[Task]) -> Iterator[None]:
        """Label every task; yields after each batch."""
        for batch in self._batcher.batches(self._measured(tasks)):
            self._label_batch(batch)
            self._judge_suspects()
            yield
        self._judge_suspects(last=True)

    def _measured(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Tasks with the edges of their graphs; one with a foreign element or without a neighbour list fails here."""
        for task in tasks:
            try:
                self._teacher.info.check_structure(task.structure)
                edges = self._teacher.edges(task.structure)
            except (LabelError, StructureError) as error:
                self._fail(task, str(error))
            except Exception as error:  # noqa: BLE001 - packages raise what they like; it is judged later
                self._suspect(task, error)
                if len(self._suspects) >= MANY_SUSPECTS:
                    self._judge_suspects()
            else:
                yield replace(task, edges=edges)

    def _label_batch(self, batch: list[Task]) -> None:
        """Ask the teacher; a batch that it refuses or breaks on is halved until the structure at fault is alone."""
        try:
            labels = self._ask(batch)
        except (LabelError, StructureError) as error:
            if len(batch) == 1:
                self._fail(batch[0], str(error))
            else:
                self._label_halves(batch)
        except MemoryError as error:
            if len(batch) == 1:
                self._fail(batch[0], f"out of memory: {error}")
            else:
                self._label_smaller(batch)
        except Exception as error:  # noqa: BLE001 - the same
            if len(batch) == 1:
                self._suspect(batch[0], error)
            else:
                _raise_own(error)
                self._label_halves(batch)
        else:
            self._batcher.fitted()
            self._proven = batch[0]
            for task, label in zip(batch, labels, strict=True):
                self._take(task, label)
            self._fail_suspects()

    def _ask(self, batch: list[Task]) -> list[Label]:
        request = LabelRequest(base=batch[0].base, hessian_row_numbers=[task.rows for task in batch])
        labels = self._teacher.label([task.structure for task in batch], request)
        if len(labels) != len(batch):
            raise LabelError(f"{self._teacher.info.name} gave {len(labels)} labels for {len(batch)} structures")
        return labels

    def _label_halves(self, batch: list[Task]) -> None:
        middle = len(batch) // 2
        self._label_batch(batch[:middle])
        self._label_batch(batch[middle:])

    def _label_smaller(self, batch: list[Task]) -> None:
        self._batcher.did_not_fit(batch)
        parts = pack(batch, self._batcher.now)
        if len(parts) == 1:
            self._label_halves(batch)
            return
        for part in parts:
            self._label_batch(part)

    def _suspect(self, task: Task, error: Exception) -> None:
        """Remember a structure alone with which the teacher broke off."""
        _raise_own(error)
        self._suspects.append((task, error))

    def _judge_suspects(self, *, last: bool = False) -> None:
        """Fail the suspects, or raise the error where it is the teacher's: the same for all, and for one it did before.

        A single one waits for the next batch, unless this was the last.
        """
        if not self._suspects:
            return
        if self._proven is None:
            if len(self._suspects) == 1 and not last:
                return
            if len(self._suspects) > 1 and len({_told(error) for _, error in self._suspects}) == 1:
                raise self._suspects[0][1]
        else:
            with suppress(LabelError, StructureError, MemoryError):
                self._ask([self._proven])
        self._fail_suspects()

    def _fail_suspects(self) -> None:
        suspects, self._suspects = self._suspects, []
        for task, error in suspects:
            self._fail(task, _told(error))

    def _take(self, task: Task, label: Label) -> None:
        try:
            check_label(label, natoms=len(task.structure), pbc=task.structure.pbc)
            _check_answer(task, label, energy=self._teacher.info.energy, pseudo=self._pseudo)
        except LabelError as error:
            self._fail(task, str(error))
            return
        self.tally.labelled += 1
        self.tally.rows += len(task.rows)
        self._sink.add(task, label)

    def _fail(self, task: Task, reason: str) -> None:
        self.tally.count_failure(task.id, reason)
        self._sink.add_failure(task, reason)


def _raise_own(error: Exception) -> None:
    """Raise what mlipdb says on purpose, such as that a worker is gone or the disk full: no structure is at fault."""
    if isinstance(error, MlipdbError) and not isinstance(error, TeacherError):
        raise error


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, TeacherError) else f"{type(error).__name__}: {error}".strip()


def _check_answer(task: Task, label: Label, *, energy: str, pseudo: bool) -> None:
    """Raise LabelError when the teacher did not give what it was asked for."""
    if task.base and (getattr(label, energy) is None or label.forces is None):
        raise LabelError(f"the teacher gave no {energy} or no forces")
    if task.base and pseudo and label.stress is None and all(task.structure.pbc):
        raise LabelError("the teacher gave no stress, and a pseudo-label is whole or not at all")
    given = [] if label.hessian_row_numbers is None else label.hessian_row_numbers.tolist()
    if given != task.rows.tolist():
        raise LabelError(f"asked for Hessian rows {task.rows.tolist()}, the teacher gave {given}")
