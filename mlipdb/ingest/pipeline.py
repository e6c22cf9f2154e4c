"""From source files to the database: read, check, drop duplicates, find symmetry, append in batches."""

import gc
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from mlipdb import registry
from mlipdb.database import Database
from mlipdb.errors import IngestError, MlipdbError
from mlipdb.ingest.duplicates import DuplicateFilter
from mlipdb.ingest.files import InputFile, content_sha256, input_files
from mlipdb.ingest.reader import Frame, Reader, Rejected
from mlipdb.ingest.sources import FileReading, SourceBook, SourceFacts
from mlipdb.ingest.stream import FileDigest
from mlipdb.ingest.symmetry import SymmetryFinder, SymmetryTask
from mlipdb.labels import Method, check_label
from mlipdb.records import NewStructure, RejectedRecord
from mlipdb.store.lock import WriterLock

GROUP = "mlipdb.readers"
STEP = 1024  # records that are compared with the catalog, and searched for symmetry, together
SHOWN = 1000  # rejected records that a report holds; the catalog has them all
AHEAD = 1  # full batches that wait for their symmetry while the reader goes on


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """How to ingest. reader is a plug-in's name; name the source's, by default the reader's or the first file's.

    keys and units are passed to the reader. symprec is in Å, None for no symmetry search; workers are processes for
    it (default: one per core, 0 for none). A batch of records becomes one shard.
    """

    reader: str
    name: str | None = None
    method: Method | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    symprec: float | None = 1e-2
    workers: int | None = None
    batch: int = 16384
    licence: str | None = None
    citation: str | None = None
    version: str | None = None


@dataclass(kw_only=True)
class IngestReport:
    """What an ingest did. taken + duplicates + quarantined = records read; already_taken is a part of duplicates.

    structures are those that the source now has in the catalog. rejected holds the first records of the quarantine.
    """

    source: str
    taken: int = 0
    duplicates: int = 0
    quarantined: int = 0
    already_taken: int = 0
    structures: int = 0
    state: str = "ingesting"
    seconds: float = 0.0
    sha256: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rejected: list[RejectedRecord] = field(default_factory=list)

    @property
    def records(self) -> int:
        """Records read."""
        return self.taken + self.duplicates + self.quarantined


def ingest(
    db: Database,
    paths: Sequence[Path],
    *,
    settings: IngestSettings,
    progress: Callable[[IngestReport], None] | None = None,
) -> IngestReport:
    """Take the records of files into the database; repeating it, after a crash or not, ends with the same rows.

    Raises IngestError where a file cannot be read further (what came before it is in the database), LockedError while
    another ingest runs, ConfigError where the source exists with other settings.
    """
    reader: Reader = registry.load(GROUP, settings.reader)()
    files = input_files(paths, reader)
    facts = _facts(reader, paths, settings)
    book = SourceBook(db, facts, files, uri=" ".join(map(str, paths)))
    report = IngestReport(source=facts.name)
    start = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(_patient_collector())
        stack.enter_context(WriterLock(db.path / "ingest.lock"))
        finder = None
        if settings.symprec is not None:
            finder = stack.enter_context(SymmetryFinder(symprec=settings.symprec, workers=settings.workers))
        run = _Run(db, book.open(), method_id=db.method_id(facts.method), finder=finder, batch=settings.batch)
        run.report, run.progress = report, progress or _silent
        try:
            _read_files(run, book, reader, files, settings=settings)
            report.state = "complete"
        finally:
            if report.state != "complete":
                report.state = "stopped"
            report.structures = book.close(report.state)
            report.seconds = time.monotonic() - start
    return report


@contextmanager
def _patient_collector() -> Iterator[None]:
    """Look for reference cycles seldom: records have none, and the search took a fifth of an ingest's time."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _facts(reader: Reader, paths: Sequence[Path], settings: IngestSettings) -> SourceFacts:
    default = getattr(reader, "default_method", None)
    # A format of one published set names its source; else the file or folder does.
    name = settings.name or (reader.name if default else paths[0].resolve().name.split(".")[0])
    default = default or Method(kind="dft", name=name)
    return SourceFacts(
        name=name,
        reader=settings.reader,
        method=settings.method or default,
        keys=settings.keys,
        units=settings.units,
        licence=settings.licence,
        citation=settings.citation,
        version=settings.version,
    )


def _silent(report: IngestReport) -> None:
    """Report to nobody."""


def _read_files(
    run: "_Run", book: SourceBook, reader: Reader, files: Sequence[InputFile], *, settings: IngestSettings
) -> None:
    """Read all files; small ones share shards, so they count as read only when all records are stored."""
    report = run.report
    options = {"keys": settings.keys, "units": settings.units, "source": report.source}
    read: dict[str, FileReading] = {}
    try:
        for file in files:
            digest = FileDigest()
            before, refused = report.records, report.quarantined
            run.read(reader.frames(file.path, {**options, "digest": digest, "file": file.name}), file.name)
            report.sha256[file.name] = content_sha256(file.path, digest)
            read[file.name] = FileReading(
                report.sha256[file.name], report.records - before, report.quarantined - refused
            )
    except IngestError as error:
        run.flush()
        book.finish(read)
        kept = f"taken {report.taken}, duplicates {report.duplicates}, quarantined {report.quarantined}"
        raise IngestError(f"{error} [{kept}]") from error
    run.flush()
    report.notes += book.finish(read)


@dataclass
class _Part:
    """Some frames that will be taken, under their final ids, with the search for their symmetry under way."""

    frames: list[tuple[str, Frame]]
    task: SymmetryTask | None

    def records(self) -> list[NewStructure]:
        groups = self.task.result() if self.task else [None] * len(self.frames)
        return [
            NewStructure(
                structure=frame.structure,
                label=frame.label,
                external_id=name,
                material=frame.material,
                space_group=group,
            )
            for (name, frame), group in zip(self.frames, groups, strict=True)
        ]


@dataclass
class _Batch:
    """What one append will write."""

    parts: list[_Part] = field(default_factory=list)
    rejected: list[RejectedRecord] = field(default_factory=list)
    records: int = 0


class _Run:
    """The stages behind the reader. Memory holds at most two batches."""

    report: IngestReport
    progress: Callable[[IngestReport], None]

    def __init__(
        self, db: Database, source_id: int, *, method_id: int, finder: SymmetryFinder | None, batch: int
    ) -> None:
        self._db = db
        self._source = source_id
        self._method = method_id
        self._finder = finder
        self._size = batch
        self._filter = DuplicateFilter(db, source_id=source_id, method_id=method_id)
        self._batches: deque[_Batch] = deque([_Batch()])

    def read(self, items: Iterator[Frame | Rejected], file: str) -> None:
        """Take a file's records in; what was read before an error is kept for flush."""
        frames: list[Frame] = []
        try:
            for item in items:
                checked = item if isinstance(item, Rejected) else _checked(item)
                if isinstance(checked, Rejected):
                    self._reject(checked, file)
                    continue
                frames.append(checked)
                if len(frames) >= min(STEP, self._size):
                    full, frames = frames, []
                    self._sort(full, file)
        finally:
            self._sort(frames, file)

    def flush(self) -> None:
        """Write everything that is still in memory."""
        while self._batches:
            self._write(self._batches.popleft())
        self._batches.append(_Batch())

    def _sort(self, frames: list[Frame], file: str) -> None:
        """Take new frames into the batch, count the others."""
        taken: list[tuple[str, Frame]] = []
        for frame, decision in zip(frames, self._filter.decide(frames), strict=True):
            if decision.external_id is not None:
                taken.append((decision.external_id, frame))
            elif decision.conflict is not None:
                self._reject(Rejected(key=frame.external_id, location=frame.location, reason=decision.conflict), file)
            else:
                self.report.duplicates += 1
                self.report.already_taken += decision.already
        self.report.taken += len(taken)
        batch = self._batches[-1]
        if taken:
            task = self._finder.submit([frame.structure for _, frame in taken]) if self._finder else None
            batch.parts.append(_Part(taken, task))
        batch.records += len(frames)
        if batch.records >= self._size:
            self._batches.append(_Batch())
        if len(self._batches) > AHEAD + 1:
            self._write(self._batches.popleft())
        self.progress(self.report)

    def _reject(self, item: Rejected, file: str) -> None:
        record = RejectedRecord(key=item.key, location=f"{file}: {item.location}", reason=item.reason)
        self._batches[-1].rejected.append(record)
        self._batches[-1].records += 1
        self.report.quarantined += 1
        if len(self.report.rejected) < SHOWN:
            self.report.rejected.append(record)

    def _write(self, batch: _Batch) -> None:
        records = list(chain.from_iterable(part.records() for part in batch.parts))
        if not records and not batch.rejected:
            return
        self._db.append(
            records,
            source_id=self._source,
            method_id=self._method,
            symmetry=self._finder.tool if self._finder else None,
            rejected=batch.rejected,
        )
        self._filter.stored(record.external_id for record in records)


def _checked(frame: Frame) -> Frame | Rejected:
    if frame.label is None:
        return frame
    try:
        check_label(frame.label, natoms=len(frame.structure), pbc=frame.structure.pbc)
    except MlipdbError as error:
        return Rejected(key=frame.external_id, location=frame.location, reason=str(error))
    return frame


def parse_method(text: str) -> Method:
    """``PBE/VASP`` as functional and code; a name without a slash is the functional."""
    functional, _, code = text.partition("/")
    return Method(kind="dft", name=text, functional=functional.strip() or None, code=code.strip() or None)


def describe(report: IngestReport) -> dict[str, Any]:
    """The report as plain JSON data."""
    return {
        "source": report.source,
        "taken": report.taken,
        "duplicates": report.duplicates,
        "quarantined": report.quarantined,
        "already_taken": report.already_taken,
        "structures": report.structures,
        "state": report.state,
        "seconds": round(report.seconds, 3),
        "sha256": report.sha256,
        "notes": report.notes,
        "rejected": [vars(record) for record in report.rejected],
    }
