"""From source files to the database: read, check, drop duplicates, find symmetry, append in batches."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlipdb import registry
from mlipdb.collector import patient_collector
from mlipdb.database import Database
from mlipdb.errors import IngestError
from mlipdb.ingest.checks.stored import refuse, store_findings
from mlipdb.ingest.files import input_files
from mlipdb.ingest.line import Line
from mlipdb.ingest.reader import Reader
from mlipdb.ingest.reading import Reading, Warn
from mlipdb.ingest.report import IngestReport
from mlipdb.ingest.sources import SourceBook, SourceFacts
from mlipdb.ingest.symmetry import symmetry_tool
from mlipdb.ingest.taking import Taker
from mlipdb.ingest.work import Worker
from mlipdb.labels import Method
from mlipdb.store.lock import WriterLock

GROUP = "mlipdb.readers"
LOOK_AHEAD = 4096  # frames that are checked and reported on before the first shard is sealed


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """How to ingest. reader is a plug-in's name; name the source's, by default the reader's or the first file's.

    keys and units are passed to the reader. symprec is in Å, None for no symmetry search; workers are processes for
    parsing, hashing, compressing and that search (default: one per core, 0 for none). A batch of records becomes one
    shard. strict reads and checks everything first and stores nothing where a check finds anything.
    """

    reader: str
    name: str | None = None
    method: Method | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    symprec: float | None = 1e-2
    workers: int | None = None
    batch: int = 32768
    strict: bool = False
    licence: str | None = None
    citation: str | None = None
    version: str | None = None


def ingest(
    db: Database,
    paths: Sequence[Path],
    *,
    settings: IngestSettings,
    progress: Callable[[IngestReport], None] | None = None,
    warn: Warn | None = None,
) -> IngestReport:
    """Take the records of files into the database; repeating it, after a crash or not, ends with the same rows.

    warn is told what the checks find odd in the first few thousand frames, before anything is stored; at the end the
    findings of all frames are in the report, and in the catalog with the source. Raises IngestError where a file cannot
    be read further (what came before it is in the database) or where settings.strict finds anything (nothing is),
    LockedError while another ingest runs, ConfigError where the source exists with other settings.
    """
    reader: Reader = registry.load(GROUP, settings.reader)()
    files = input_files(paths, reader)
    facts = _facts(reader, paths, settings)
    book = SourceBook(db, facts, files, uri=" ".join(map(str, paths)))
    report = IngestReport(source=facts.name)
    start = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(patient_collector())
        stack.enter_context(WriterLock(db.path / "ingest.lock"))
        line = stack.enter_context(Line(Worker(reader, settings.symprec), workers=settings.workers))
        reading = Reading(line, reader, files, options={**_options(settings, facts), "notes": report.notes})
        if settings.strict:
            refuse(facts.name, reading.check())
        taker = Taker(
            db,
            source_id=book.open(),
            method_id=db.method_id(facts.method),
            symmetry=None if settings.symprec is None else symmetry_tool(settings.symprec),
            batch=settings.batch,
            report=report,
            progress=progress or _silent,
        )
        try:
            _take_all(db, reading, taker, book, report, warn=warn or _silent)
            store_findings(db, book.id, report.findings, files=[file.name for file in files])
            report.state = "complete"
        finally:
            if report.state != "complete":
                report.state = "stopped"
            report.structures = book.close(report.state)
            report.seconds = time.monotonic() - start
    return report


def _take_all(
    db: Database, reading: Reading, taker: Taker, book: SourceBook, report: IngestReport, *, warn: Warn
) -> None:
    """Take all files in; small ones share shards, so they count as read only when all records are stored.

    Where it stops, what was taken stays and so does what was found in it.
    """
    try:
        reading.take(taker, report, warn=warn, ahead=min(LOOK_AHEAD, taker.batch // 2))
    except (IngestError, KeyboardInterrupt) as error:
        taker.flush()
        book.finish(reading.whole_files(taker.files))
        store_findings(db, book.id, report.findings, files=sorted(taker.files), stopped=True)
        kept = f"taken {report.taken}, duplicates {report.duplicates}, quarantined {report.quarantined}"
        what = str(error) if isinstance(error, IngestError) else "interrupted; repeat the command to go on"
        raise IngestError(f"{what} [{kept}]") from error
    taker.flush()
    read = reading.whole_files(taker.files)
    report.sha256 = {name: file.sha256 for name, file in read.items()}
    report.notes += book.finish(read)


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


def _options(settings: IngestSettings, facts: SourceFacts) -> dict[str, Any]:
    return {"keys": settings.keys, "units": settings.units, "source": facts.name}


def _silent(_: object) -> None:
    """Tell nobody."""


def parse_method(text: str) -> Method:
    """``PBE/VASP`` as functional and code; a name without a slash is the functional."""
    functional, _, code = text.partition("/")
    return Method(kind="dft", name=text, functional=functional.strip() or None, code=code.strip() or None)
