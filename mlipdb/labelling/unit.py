"""What a worker is handed, what it does, and what it hands back. Workers know nothing of the catalog."""

import os
import shutil
import socket
import tempfile
import threading
import time
import traceback
import uuid as uuids
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mlipdb.errors import LabelError, WorkerLostError
from mlipdb.labelling.batches import Batcher, BatchLimits, Task
from mlipdb.labelling.foreign import ForeignTeacher
from mlipdb.labelling.load import load_teacher
from mlipdb.labelling.teacher import Teacher, TeacherInfo, TeacherOptions
from mlipdb.labelling.work import Labeller, Tally
from mlipdb.labels import Label, Method
from mlipdb.store.codec import Encoder, seal_all
from mlipdb.store.facts import ShardFacts
from mlipdb.store.shard import SealedShard, sync_directory, write_shard

LoadTeacher = Callable[[], Teacher]


@dataclass(frozen=True, kw_only=True)
class NamedTeacher:
    """How a worker gets its teacher: by name. Equal ones share the loaded teacher of a worker process."""

    name: str
    options: TeacherOptions = field(default_factory=TeacherOptions)

    def __call__(self) -> Teacher:
        """Load it."""
        return load_teacher(self.name, self.options)


@dataclass(frozen=True, eq=False, kw_only=True)
class WorkUnit:
    """Structures for one worker, how it gets the teacher, and which method that must be.

    spool is the folder of the run that takes sealed shards, where the worker can see it; uuid is the database's.
    """

    load: LoadTeacher
    method: Method
    uuid: str
    spool: Path
    limits: BatchLimits | None
    pseudo: bool
    batch_edges: int | None = None
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Manifest:
    """What a worker did with a unit: the sealed shard with labels of ids, or None, and failures as (id, part, reason).

    data holds the shard's bytes where the worker cannot see the spool. error is the traceback of what stopped it.
    """

    worker: str
    sealed: SealedShard | None
    data: bytes | None
    ids: tuple[int, ...]
    failures: tuple[tuple[int, int, str], ...]
    tally: Tally
    seconds: float
    error: str | None


def introduce(load: LoadTeacher) -> TeacherInfo:
    """Which teacher a worker has; it keeps it for the units to come."""
    with _turn:
        return _worker.teacher_of(load).info


def run_unit(unit: WorkUnit) -> Manifest:
    """Label a unit's structures and seal the labels in a shard of their own.

    Raises WorkerLostError where the process that the teacher runs in died: the unit is lost as with a worker.
    """
    with _turn:
        teacher = _worker.teacher_of(unit.load)
        _check_method(teacher.info.method(), unit.method)
        done = _Collected()
        labeller = Labeller(teacher, done, batcher=_worker.batcher_of(unit, teacher), pseudo=unit.pseudo)
        begun, error = time.monotonic(), None
        try:
            for _ in labeller.work(unit.tasks):
                pass
        except WorkerLostError:
            _worker.forget()
            raise
        except Exception:  # noqa: BLE001 - the submitter raises it, once what is finished is stored
            _worker.forget()
            error = traceback.format_exc()
        seconds = time.monotonic() - begun
        sealed, data = _deliver(done.labels, unit) if done.labels else (None, None)
    return Manifest(
        worker=f"{socket.gethostname()}:{os.getpid()}",
        sealed=sealed,
        data=data,
        ids=tuple(task.id for task, _ in done.labels),
        failures=tuple((task.id, task.part, reason) for task, reason in done.failures),
        tally=labeller.tally,
        seconds=seconds,
        error=error,
    )


class _Worker:
    """What a worker process keeps between units: one teacher, and the batch size that memory has taught it."""

    def __init__(self) -> None:
        self._loaded: tuple[LoadTeacher, Teacher] | None = None
        self._batcher: Batcher | None = None

    def teacher_of(self, load: LoadTeacher) -> Teacher:
        if self._loaded is None or self._loaded[0] != load or _is_dead(self._loaded[1]):
            self.forget()  # frees the memory before the next is loaded
            self._loaded = (load, load())
        return self._loaded[1]

    def forget(self) -> None:
        """Keep no teacher: one that failed may be of no use for the units to come."""
        self._loaded = self._batcher = None

    def batcher_of(self, unit: WorkUnit, teacher: Teacher) -> Batcher:
        limits = unit.limits or teacher.batch_limits.scaled(unit.batch_edges)
        if self._batcher is None or self._batcher.limits != limits or self._batcher.holds_tasks:
            self._batcher = Batcher(limits=limits)
        return self._batcher


def _is_dead(teacher: Teacher) -> bool:
    return isinstance(teacher, ForeignTeacher) and not teacher.alive


_worker = _Worker()
_turn = threading.Lock()  # executors may run units on threads, and a teacher is asked one thing at a time


class _Collected:
    """Labels and failures of one unit."""

    def __init__(self) -> None:
        self.labels: list[tuple[Task, Label]] = []
        self.failures: list[tuple[Task, str]] = []

    def add(self, task: Task, label: Label) -> None:
        self.labels.append((task, label))

    def add_failure(self, task: Task, reason: str) -> None:
        self.failures.append((task, reason))


def _check_method(found: Method, expected: Method) -> None:
    if found == expected:
        return
    names = [name for name in Method.__dataclass_fields__ if getattr(found, name) != getattr(expected, name)]
    told = "; ".join(f"{name} {getattr(found, name)!r}, not {getattr(expected, name)!r}" for name in names)
    raise LabelError(
        f"the teacher of worker {socket.gethostname()}:{os.getpid()} is another method than that of the run: {told}; "
        f"install the same packages and weights for all workers"
    )


def _deliver(labels: list[tuple[Task, Label]], unit: WorkUnit) -> tuple[SealedShard, bytes | None]:
    """Seal labels on a local disk and put the shard into the spool; its bytes where there is no spool to be seen."""
    ordered = sorted(labels, key=lambda pair: pair[0].id)
    encoded = Encoder().prepare([(None, label) for _, label in ordered])
    facts = ShardFacts(
        methods=[{name: getattr(unit.method, name) for name in Method.__dataclass_fields__}],
        label_methods=[0] * len(ordered),
        parts=[task.part for task, _ in ordered],
    )
    with tempfile.TemporaryDirectory(prefix="mlipdb-") as scratch:
        records = seal_all([task.id for task, _ in ordered], encoded)
        sealed = write_shard(Path(scratch), records, kind="labels", uuid=unit.uuid, facts=facts)
        file = Path(scratch) / sealed.path
        return sealed, None if _put(file, unit.spool / sealed.path) else file.read_bytes()


def _put(file: Path, place: Path) -> bool:
    """Copy a file to its place whole or not at all; False where the folder is not there (or not any more)."""
    draft = place.with_name(f".incoming-{uuids.uuid4().hex}")
    try:
        with file.open("rb") as source, draft.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        draft.rename(place)
        sync_directory(place.parent)
    except (FileNotFoundError, PermissionError):
        return False
    return True
