"""What the catalog remembers of the files of a source, so that a repeated ingest knows what it meets."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select, update

from mlipdb.catalog import Duplicate, FindingRow, Quarantine, Source, StructureRow
from mlipdb.database import Database
from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.files import InputFile, files_below
from mlipdb.labels import Method

SAMPLE = 1 << 20  # bytes at each end of a file that its fingerprint covers


@dataclass(frozen=True)
class SourceFile:
    """A file as it was last seen: whole-file sha256 once it was read to its end, counts of its last reading."""

    bytes: int
    fingerprint: str
    sha256: str | None = None
    records: int = 0
    quarantined: int = 0
    complete: bool = False


@dataclass(frozen=True)
class FileReading:
    """What reading a file to its end showed."""

    sha256: str
    records: int
    quarantined: int


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What is said of a source when it is first made."""

    name: str
    reader: str
    method: Method
    keys: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None
    citation: str | None = None
    version: str | None = None

    def options(self) -> dict[str, Any]:
        """The part that changes what a record means, as JSON."""
        method = {name: getattr(self.method, name) for name in ("name", "code", "functional")}
        return {"method": method, "keys": dict(self.keys), "units": dict(self.units)}


def look_at(path: Path) -> SourceFile:
    """Size and fingerprint of a file or folder: enough to notice another one without reading gigabytes."""
    if path.is_dir():
        below = [(file.relative_to(path).as_posix(), look_at(file)) for file in files_below(path)]
        whole = hashlib.sha256("\n".join(f"{seen.fingerprint} {name}" for name, seen in below).encode())
        return SourceFile(bytes=sum(seen.bytes for _, seen in below), fingerprint=whole.hexdigest())
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE))
            file.seek(max(size - SAMPLE, 0))
            digest.update(file.read(SAMPLE))
    except OSError as error:
        raise IngestError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return SourceFile(bytes=size, fingerprint=digest.hexdigest())


class SourceBook:
    """The source row of one ingest."""

    def __init__(self, db: Database, facts: SourceFacts, files: Sequence[InputFile], *, uri: str) -> None:
        self._db = db
        self._facts = facts
        twice = next((name for name, count in Counter(file.name for file in files).items() if count > 1), None)
        if twice is not None:
            raise ConfigError(f"the file {twice!r} is given twice; give each file once")
        self._seen = {file.name: look_at(file.path) for file in files}
        self._uri = uri
        self.id = 0

    def open(self) -> int:
        """The source's id, made where it is new.

        Raises ConfigError where the source has structures by another reader, method or keys, IngestError where a file
        that was ingested whole is another one now.
        """
        facts = self._facts
        row = self._row()
        if row is not None and self._difference(row) and self._forget_if_empty(row.id):
            row = None
        options = {} if row is None else dict(row.options)
        if row is not None and (difference := self._difference(row)):
            raise ConfigError(difference)
        files = {**options.get("files", {}), **self._files(options.get("files", {}))}
        self.id = self._db.open_source(
            facts.name,
            reader=facts.reader,
            uri=self._uri,
            options={**facts.options(), "files": files},
            licence=facts.licence,
            citation=facts.citation,
            version=facts.version,
        )
        if row is not None:
            self._save(files)
        return self.id

    def finish(self, read: Mapping[str, FileReading]) -> list[str]:
        """Remember files that were read whole and whose records are stored; a note for each that has changed."""
        files, notes = self._stored_files(), []
        for name, reading in read.items():
            before = files[name].get("sha256")
            files[name] = asdict(self._seen[name]) | asdict(reading) | {"complete": True}
            if before not in (None, reading.sha256):
                notes.append(
                    f"{name} is not the file of the last ingest (sha256 {reading.sha256}, was {before}); "
                    "its new records were added"
                )
        self._save(files)
        return notes

    def close(self, state: str) -> int:
        """Set the state and the counts that follow from it; how many structures the source has."""
        files = self._stored_files()
        with self._db.write() as session:
            rows = session.scalar(select(func.count()).where(StructureRow.source_id == self.id)) or 0
            values: dict[str, Any] = {"taken": rows, "state": state}
            if all(file["complete"] for file in files.values()):
                # Counted from the whole, not added up run by run, so that repeating an ingest changes nothing.
                left = sum(file["records"] - file["quarantined"] for file in files.values())
                values["duplicates"] = max(left - rows, 0)
            session.execute(update(Source).where(Source.id == self.id).values(**values))
        return rows

    def _row(self) -> Source | None:
        with self._db.session() as session:
            return session.scalar(select(Source).where(Source.name == self._facts.name))

    def _difference(self, row: Source) -> str | None:
        """What is not as it was when the source was made, as the text of an error."""
        wanted = {"reader": self._facts.reader, **self._facts.options()}
        stored = {"reader": row.reader, **{key: row.options.get(key) for key in self._facts.options()}}
        for key, value in wanted.items():
            if stored[key] != value:
                return (
                    f"source {self._facts.name!r} was ingested with {key} {stored[key]!r}, now it is {value!r}; "
                    "repeat it with the same settings, or give the new one another --name"
                )
        return None

    def _forget_if_empty(self, source_id: int) -> bool:
        """Drop a source that never got a structure, with its quarantine: a wrong option must not bind the next try."""
        with self._db.write() as session:
            if session.scalar(select(StructureRow.id).where(StructureRow.source_id == source_id).limit(1)) is not None:
                return False
            for table in (Quarantine, FindingRow, Duplicate):
                session.execute(delete(table).where(table.source_id == source_id))
            session.execute(delete(Source).where(Source.id == source_id))
        return True

    def _files(self, before: Mapping[str, Any]) -> dict[str, Any]:
        files = {}
        for name, seen in self._seen.items():
            known = SourceFile(**before[name]) if name in before else seen
            if known.complete and known.fingerprint != seen.fingerprint:
                raise IngestError(
                    f"{name} is not the file that source {self._facts.name!r} was made from ({seen.bytes} bytes, was "
                    f"{known.bytes}, sha256 {known.sha256}); give the new one another --name"
                )
            files[name] = asdict(known if known.complete else seen)
        return files

    def _stored_files(self) -> dict[str, Any]:
        with self._db.session() as session:
            return dict(session.get_one(Source, self.id).options.get("files", {}))

    def _save(self, files: Mapping[str, Any]) -> None:
        hashes = [f"{file['sha256']} {name}" for name, file in sorted(files.items())]
        whole = None
        if all(file["sha256"] for file in files.values()):
            one = next(iter(files.values()))["sha256"]
            whole = one if len(files) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        with self._db.write() as session:
            row = session.get_one(Source, self.id)
            row.options = {**self._facts.options(), "files": dict(files)}
            row.sha256 = whole
