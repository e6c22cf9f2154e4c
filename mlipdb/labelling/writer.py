"""Stores finished labels, some at a time."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlipdb.catalog import LabelRow
from mlipdb.database import Database
from mlipdb.errors import LockedError
from mlipdb.labelling.batches import Task
from mlipdb.labelling.options import Flush
from mlipdb.labels import ARRAYS, Label
from mlipdb.records import NewLabel

LOCK_ATTEMPTS, LOCK_PAUSE = 600, 0.2  # seconds between attempts; two minutes in all
CHUNK = 1000  # ids in one statement


class LabelWriter:
    """Collects labels of one method and appends them to the database; on leaving, whatever the reason, all of them."""

    def __init__(self, db: Database, method_id: int, *, flush: Flush) -> None:
        self._db = db
        self._method_id = method_id
        self._limits = flush
        self._records: list[NewLabel] = []
        self._bytes = 0
        self._last = time.monotonic()

    def __enter__(self) -> "LabelWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def add(self, task: Task, label: Label) -> None:
        """Take a finished label."""
        self._bytes += sum(array.nbytes for name in ARRAYS if (array := getattr(label, name)) is not None)
        self._add(NewLabel(structure_id=task.id, part=task.part, label=label, reason=None))

    def add_failure(self, task: Task, reason: str) -> None:
        """Take the reason why there is no label."""
        self._add(NewLabel(structure_id=task.id, part=task.part, label=None, reason=reason))

    def flush(self) -> None:
        """Store what was collected, except what another process has stored since this run began."""
        records, self._records, self._bytes = self._records, [], 0
        if records:
            with wait_for_lock(self._db):
                stored = stored_parts(self._db, self._method_id, ids=[record.structure_id for record in records])
                fresh = [record for record in records if (record.structure_id, record.part) not in stored]
                if fresh:
                    self._db.append_labels(fresh, method_id=self._method_id)
        self._last = time.monotonic()

    def _add(self, record: NewLabel) -> None:
        self._records.append(record)
        limits = self._limits
        if (
            len(self._records) >= limits.records
            or self._bytes >= limits.megabytes * 1e6
            or time.monotonic() - self._last >= limits.seconds
        ):
            self.flush()


def stored_parts(db: Database, method_id: int, *, ids: Sequence[int]) -> set[tuple[int, int]]:
    """(structure, part) of the labels of a method that are done already, among structures of ids."""
    found: set[tuple[int, int]] = set()
    with db.session() as session:
        for start in range(0, len(ids), CHUNK):
            query = select(LabelRow.structure_id, LabelRow.part).where(
                LabelRow.method_id == method_id,
                LabelRow.status == "done",
                LabelRow.structure_id.in_(ids[start : start + CHUNK]),
            )
            found |= {(structure_id, part) for structure_id, part in session.execute(query)}
    return found


@contextmanager
def wait_for_lock(db: Database) -> Iterator[Session]:
    """The writer's lock and transaction, waited for: hours of labels must not be lost to a short ingest elsewhere."""
    with ExitStack() as stack:
        for attempt in range(LOCK_ATTEMPTS):
            try:
                session = stack.enter_context(db.write())
                break
            except LockedError:
                if attempt == LOCK_ATTEMPTS - 1:
                    raise
                time.sleep(LOCK_PAUSE)
        yield session
