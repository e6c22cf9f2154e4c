"""Where workers put sealed shards of labels until the submitter gives them rows.

A run has the folder spool/RUN of the database directory, locked while the run lives. A shard is linked into shards/,
gets its rows in one transaction and leaves the spool: killed between any two steps, the next run finds it in the
spool and finishes, so nothing is computed twice and nothing stored twice.
"""

import os
import shutil
import uuid as uuids
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from mlipdb.catalog import LabelRow
from mlipdb.catalog.facets import add_label_facets
from mlipdb.catalog.rows import add_shard, label_values
from mlipdb.database import Database
from mlipdb.errors import CorruptError, LockedError
from mlipdb.labelling.unit import Manifest
from mlipdb.labelling.writer import CHUNK, stored_parts, wait_for_lock
from mlipdb.labels import Method
from mlipdb.records import NewLabel
from mlipdb.store.checked import file_sha256
from mlipdb.store.found import FoundShard, find_shards
from mlipdb.store.lock import WriterLock
from mlipdb.store.shard import open_shard, sync_directory

FOLDER = "spool"


class Spool:
    """The folder of one run; registers what arrives in it. Removed at the end, unless something was left in it."""

    def __init__(self, db: Database, *, method_id: int) -> None:
        self.folder = db.path / FOLDER / uuids.uuid4().hex
        self._db = db
        self._method_id = method_id
        self._draft = self.folder.with_name(f".{self.folder.name}")
        self._lock = WriterLock(self._draft / "lock")

    @property
    def visible(self) -> Path:
        """Where workers look for it."""
        return self.folder.absolute()

    def __enter__(self) -> "Spool":
        (self._draft / "shards").mkdir(parents=True)
        self._lock.__enter__()
        self._draft.rename(self.folder)  # locked before another run may take it for a dead one's
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            _remove(self.folder)  # units that were worked on twice may have left a shard that was not needed
        self._lock.__exit__(kind, error, trace)

    def register(self, manifest: Manifest) -> None:
        """Store the labels and failures of a unit. Raises CorruptError when the shard is not what the worker sealed."""
        if manifest.sealed is not None:
            file = self.folder / manifest.sealed.path
            if manifest.data is not None:
                _write(file, manifest.data)
            if not file.is_file() or file_sha256(file) != manifest.sealed.sha256:
                raise CorruptError(f"{file}: not the shard that worker {manifest.worker} sealed; it is labelled again")
            facts = open_shard(file, uuid=self._db.uuid).facts()
            adopt(self._db, FoundShard(file, manifest.sealed, facts, self._db.uuid), method_id=self._method_id)
        self.add_failures(
            [NewLabel(structure_id=i, part=part, label=None, reason=why) for i, part, why in manifest.failures]
        )

    def add_failures(self, failures: list[NewLabel]) -> None:
        """Store reasons why there are no labels."""
        if not failures:
            return
        with wait_for_lock(self._db):
            stored = stored_parts(self._db, self._method_id, ids=[one.structure_id for one in failures])
            fresh = [one for one in failures if (one.structure_id, one.part) not in stored]
            self._db.append_labels(fresh, method_id=self._method_id)


def adopt_leftovers(db: Database) -> int:
    """Store the labels that dead runs left in the spool; how many shards there were. Runs that live are left alone."""
    adopted = 0
    for folder in sorted((db.path / FOLDER).glob("[!.]*")):
        try:
            with WriterLock(folder / "lock"):
                shards, _ = find_shards(folder, uuid=db.uuid)
                for shard in shards:
                    adopt(db, shard)
                adopted += len(shards)
                _remove(folder)
        except (LockedError, FileNotFoundError, NotADirectoryError):
            continue  # of a run that lives, or that has just ended
    return adopted


def adopt(db: Database, shard: FoundShard, *, method_id: int | None = None) -> None:
    """Give a sealed shard of labels its place and its rows; labels that are stored already are left out."""
    if shard.facts is None:
        raise CorruptError(f"{shard.file}: says nothing of its labels; remove it and label again")
    method_id = method_id or db.method_id(Method(**shard.facts.methods[0]))
    pairs = zip(shard.facts.parts, shard.records(), strict=True)
    labels = [NewLabel(structure_id=identity, part=part, label=record.label) for part, (identity, record) in pairs]
    with wait_for_lock(db) as session:
        stored = stored_parts(db, method_id, ids=[label.structure_id for label in labels])
        fresh = [label for label in labels if (label.structure_id, label.part) not in stored]
        if len(fresh) == len(labels):
            _link(shard.file, db.path / shard.sealed.path)
            _add_rows(session, shard, labels, method_id=method_id)
        elif fresh:
            db.append_labels(fresh, method_id=method_id)
    shard.file.unlink()


def _add_rows(session: Session, shard: FoundShard, labels: list[NewLabel], *, method_id: int) -> None:
    place = add_shard(session, replace(shard.sealed, path=f"shards/{shard.file.name}"))
    ids = [label.structure_id for label in labels]
    for start in range(0, len(ids), CHUNK):
        failed = (LabelRow.method_id == method_id, LabelRow.status == "failed")
        session.execute(delete(LabelRow).where(*failed, LabelRow.structure_id.in_(ids[start : start + CHUNK])))
    values = [
        label_values(label.label, structure_id=label.structure_id, method=method_id, shard=place, part=label.part)
        for label in labels
        if label.label is not None
    ]
    session.execute(insert(LabelRow.__table__), values)  # type: ignore[arg-type]  # declared wider than it is
    add_label_facets(session, values, shard=place)


def _link(file: Path, place: Path) -> None:
    """A second name for a file, on disk when this returns; there already where a run was killed just after."""
    place.parent.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        os.link(file, place)
    sync_directory(place.parent)


def _write(file: Path, data: bytes) -> None:
    draft = file.with_name(f".incoming-{file.name}")
    with draft.open("wb") as target:
        target.write(data)
        target.flush()
        os.fsync(target.fileno())
    draft.rename(file)
    sync_directory(file.parent)


def _remove(folder: Path) -> None:
    """Remove a run's folder. Not created again by workers, who then send what they have to nobody."""
    shutil.rmtree(folder, ignore_errors=True)
