"""A database: one directory with a catalog and its shards."""

import uuid as uuids
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, func, insert, select, text, update
from sqlalchemy.orm import Session

from mlipdb.arrays import StoredArrays
from mlipdb.catalog import CatalogInfo, LabelRow, MethodRow, Source, StructureRow
from mlipdb.catalog.engine import default_catalog, make_engine, make_postgresql_database
from mlipdb.catalog.facets import add_label_facets
from mlipdb.catalog.faults import explain_faults
from mlipdb.catalog.lookup import (
    expected_shards,
    find_entry,
    find_external,
    method_facts,
    methods_of,
    source_facts,
)
from mlipdb.catalog.rows import (
    add_copies,
    add_shard,
    add_structures,
    count_source,
    failed_values,
    known_method,
    label_values,
    method_id,
    method_of,
    now,
    symmetry_id,
)
from mlipdb.catalog.schema import check_revision, make_catalog
from mlipdb.collector import patient_collector
from mlipdb.errors import CatalogError, LockedError, NotFoundError, did_you_mean
from mlipdb.labels import Label, Method
from mlipdb.manifest import Manifest, read_manifest, write_manifest
from mlipdb.query import structure_ids
from mlipdb.records import ArrayBatch, CopiedRecord, Entry, NewLabel, NewStructure, RejectedRecord, Report, SymmetryTool
from mlipdb.selection import Selection
from mlipdb.store.codec import Encoded, Encoder, seal_all
from mlipdb.store.disk import warn_of_network
from mlipdb.store.facts import ShardFacts, structure_facts
from mlipdb.store.lock import WriterLock
from mlipdb.store.prepared import Prepared, prepare_all
from mlipdb.store.shard import SealedShard, write_shard
from mlipdb.store.verify import remove_orphans
from mlipdb.structures import Structure
from mlipdb.verification import verify


def open_database(path: Path | str) -> "Database":
    """The database in a directory.

    Raises CatalogError when there is none, or when its schema is not the one this mlipdb uses.
    """
    directory = Path(path)
    found = read_manifest(directory)
    engine = make_engine(directory, found.catalog)
    explain_faults(engine, place=directory)
    if engine.dialect.name == "sqlite":
        warn_of_network(directory)
    check_revision(engine, place=directory)
    with Session(engine) as session:
        uuid = session.scalar(select(CatalogInfo.uuid))
    if uuid != found.uuid:
        raise CatalogError(
            f"{directory}: mlipdb.toml is of database {found.uuid}, its catalog of {uuid}; one was swapped"
        )
    return Database(directory, engine=engine, uuid=found.uuid)


def create_database(path: Path | str, *, catalog: str | None = None) -> "Database":
    """The database in a directory, made when there is none.

    catalog is a file name in it or a PostgreSQL URL, whose database is made when the server has none of that name; by
    default what $MLIPDB_CATALOG says, else a SQLite file.
    """
    directory = Path(path)
    if (directory / "mlipdb.toml").exists():
        return open_database(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with WriterLock(directory / "lock"):
        if not (directory / "mlipdb.toml").exists():
            chosen = catalog or default_catalog()
            make_postgresql_database(chosen)
            engine = make_engine(directory, chosen)
            explain_faults(engine, place=directory)
            try:
                write_manifest(directory, Manifest(uuid=make_catalog(engine, directory), catalog=chosen))
            finally:
                engine.dispose()
    return open_database(directory)


class Database:
    """Structures and labels of one directory. Reading is safe from many threads and processes; one process writes.

    Arrays come back as numpy arrays in eV, Å, eV/Å, eV/Å³ (stress positive under tension).
    """

    def __init__(self, path: Path, *, engine: Engine, uuid: str) -> None:
        self.path = path
        self.engine = engine
        self.uuid = uuid
        self._catalog = read_manifest(path).catalog
        self._lock = WriterLock(path / "lock")
        self._writing = False
        self._arrays = StoredArrays(path, engine=engine, uuid=uuid)

    def close(self) -> None:
        """Close the connections to the catalog; the database opens them again when it is used again."""
        self.engine.dispose()

    def session(self) -> Session:
        """A session for reading."""
        return Session(self.engine)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """The writer's lock and one transaction, committed at the end.

        Raises LockedError when another process is writing, CatalogError when the catalog was moved meanwhile.
        """
        with self._lock, Session(self.engine) as session, session.begin():
            if read_manifest(self.path).catalog != self._catalog:
                raise CatalogError(f"{self.path}: the catalog was moved (`mlipdb db copy`); start the program again")
            outermost, self._writing = not self._writing, True
            try:
                if outermost and self.engine.dialect.name == "postgresql":
                    self._lock_other_hosts_out(session)
                yield session
            finally:
                self._writing = not outermost

    def _lock_other_hosts_out(self, session: Session) -> None:
        """PostgreSQL's own lock, until the transaction ends; a write inside a write is covered by the outer one's."""
        key = uuids.UUID(self.uuid).int % 2**63
        if not session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": key}):
            raise LockedError(f"{self.path}: another process is writing to this catalog; wait for it or stop it")

    # Methods and sources

    def method_id(self, method: Method) -> int:
        """The id of a method, made where it is new; a known one needs no writer's lock."""
        with self.session() as session:
            known = known_method(session, method)
        if known is not None:
            return known
        with self.write() as session:
            return method_id(session, method)

    def methods(self) -> dict[int, Method]:
        """Every method by id."""
        with self.session() as session:
            return {row.id: method_of(row) for row in session.scalars(select(MethodRow).order_by(MethodRow.id))}

    def method(self, identity: int) -> Method:
        """The method of an id."""
        with self.session() as session:
            row = session.get(MethodRow, identity)
            if row is None:
                raise NotFoundError(f"there is no method {identity}; known: {sorted(self.methods())}")
            return method_of(row)

    def open_source(
        self,
        name: str,
        *,
        reader: str,
        uri: str,
        sha256: str | None = None,
        options: Mapping[str, Any] | None = None,
        licence: str | None = None,
        citation: str | None = None,
        version: str | None = None,
    ) -> int:
        """The id of a source, made where it is new; its state becomes ``ingesting``."""
        facts = {"uri": uri, "sha256": sha256, "licence": licence, "citation": citation, "version": version}
        with self.write() as session:
            row = session.scalar(select(Source).where(Source.name == name))
            if row is None:
                row = Source(
                    name=name, reader=reader, options=dict(options or {}), state="ingesting", created_at=now(), **facts
                )
                row.taken = row.duplicates = row.quarantined = 0
                session.add(row)
            row.state = "ingesting"
            session.flush()
            return row.id

    def close_source(self, source_id: int, *, state: str) -> None:
        """Say how an ingest ended: ``complete`` or ``stopped``."""
        with self.write() as session:
            session.execute(update(Source).where(Source.id == source_id).values(state=state))

    # Writing: shard bytes are on disk before the one transaction that names them

    def append(
        self,
        records: Sequence[NewStructure | Prepared],
        *,
        source_id: int,
        method_id: int | None = None,
        symmetry: SymmetryTool | None = None,
        rejected: Sequence[RejectedRecord] = (),
        copies: Sequence[CopiedRecord] = (),
        duplicates: int = 0,
    ) -> list[int]:
        """Store structures with their source's labels, in one shard and one transaction; their ids.

        Prepared records save the work of compressing them: other processes may have done it.
        symmetry says what searched for space groups; duplicates and rejected are added to the source's counts, copies
        are records left out because another source has them. A crash before the commit leaves at most a file that
        `verify` names and `gc` removes.
        """
        with self._lock, patient_collector():  # in this order: threads must not restore one another's thresholds
            ready = _ready(records)
            first = self._next_structure_id()
            encoded = [(identity, record.record) for identity, record in enumerate(ready, start=first)]
            with self.session() as session:
                named = {method_id, *(record.method_id for record in ready)}
                facts = structure_facts(
                    ready,
                    source=source_facts(session, source_id),
                    methods=method_facts(session, [named_id for named_id in named if named_id is not None]),
                    method=method_id,
                    symmetry=symmetry,
                )
            sealed = self._seal(encoded, "structures", facts)
            with self.write() as session:
                if sealed is not None:
                    setting = symmetry_id(session, symmetry) if symmetry else None
                    add_structures(
                        session,
                        ready,
                        first_id=first,
                        shard=add_shard(session, sealed),
                        source=source_id,
                        method=method_id,
                        symmetry=setting,
                    )
                add_copies(session, source_id, copies)
                count_source(session, source_id, taken=len(ready), duplicates=duplicates, rejected=rejected)
        return list(range(first, first + len(ready)))

    def append_labels(self, records: Sequence[NewLabel], *, method_id: int) -> None:
        """Store labels of one method, in one shard and one transaction; failures are rows without bytes.

        A failure that is there already for the same structure and part is replaced: it was retried.
        """
        done = [record for record in records if record.label is not None]
        if len({record.structure_id for record in done}) != len(done):
            raise CatalogError("append_labels takes one part per structure at a time; append the parts one by one")
        with self._lock:
            ordered = sorted(done, key=lambda record: record.structure_id)
            encoded = Encoder().prepare([(None, record.label) for record in ordered])
            labels = [(record.structure_id, data) for record, data in zip(ordered, encoded, strict=True)]
            with self.session() as session:
                methods = list(method_facts(session, [method_id]).values())
            facts = ShardFacts(methods=methods, label_methods=[0] * len(ordered), parts=[r.part for r in ordered])
            sealed = self._seal(labels, "labels", facts)
            with self.write() as session:
                shard = None if sealed is None else add_shard(session, sealed)
                values = [_label_row(record, method=method_id, shard=shard) for record in records]
                for row in values:
                    session.query(LabelRow).filter_by(
                        structure_id=row["structure_id"], method_id=method_id, part=row["part"], status="failed"
                    ).delete()
                if values:
                    session.execute(insert(LabelRow.__table__), values)  # type: ignore[arg-type]  # declared wider
                if shard is not None:
                    add_label_facets(session, [row for row in values if row["status"] == "done"], shard=shard)

    def _next_structure_id(self) -> int:
        with self.session() as session:
            return (session.scalar(select(func.max(StructureRow.id))) or 0) + 1

    def _seal(self, records: Sequence[tuple[int, Encoded]], kind: str, facts: ShardFacts) -> SealedShard | None:
        """A sealed shard of the records, None when there are none."""
        if not records:
            return None
        encoded = seal_all([identity for identity, _ in records], [record for _, record in records])
        return write_shard(self.path, encoded, kind=kind, uuid=self.uuid, facts=facts)

    # Reading

    def structure(self, identity: int) -> Structure:
        """The structure of an id."""
        return self.structures([identity])[0]

    def structures(self, ids: Sequence[int] | np.ndarray) -> list[Structure]:
        """The structures of ids, in their order."""
        return [structure for structure, _ in self.read(ids)]

    def labels(self, identity: int) -> list[Label]:
        """Every label of a structure, one a method; the parts of a method are joined."""
        with self.session() as session:
            find_entry(session, identity)
            parts = methods_of(session, identity)
        known = self.methods()
        return [
            replace(self._arrays.label(identity, shards), method=known[method], method_id=method)
            for method, shards in parts.items()
        ]

    def read(
        self, ids: Sequence[int] | np.ndarray, *, method_id: int | None = None
    ) -> Iterator[tuple[Structure, Label | None]]:
        """Structures of ids in their order, each with its label by a method, or None where that method gave none.

        Without a method the label is the one that came with the structure's source.
        """
        return self._arrays.read(ids, method_id=method_id)

    def read_arrays(
        self,
        ids: Sequence[int] | np.ndarray,
        *,
        method_id: int | None = None,
        fields: Collection[str] = ("energy_uncorrected", "forces", "stress"),
    ) -> ArrayBatch:
        """Structures of ids in their order, with quantities of their labels, as flat arrays: the fastest way to read.

        Without a method the labels are those that came with the structures' source; with one, part 0 of its labels.
        Some thousand ids at a time are read fastest.
        """
        return self._arrays.batch(ids, fields, method_id=method_id)

    def entry(self, identity: int) -> Entry:
        """What the catalog says of a structure."""
        with self.session() as session:
            return find_entry(session, identity)

    def find(self, name: str) -> int:
        """The id of a structure given as its id or as the id that its source gives it."""
        if name.isascii() and name.isdigit():
            return self.entry(int(name)).id
        with self.session() as session:
            return find_external(session, name)

    def source_facts(self, name: str) -> dict[str, Any]:
        """What the catalog says of a source: file, hash, licence, counts."""
        with self.session() as session:
            row = session.scalars(select(Source).where(Source.name == name)).one_or_none()
            if row is None:
                raise NotFoundError(
                    f"there is no source {name!r}.{did_you_mean(name, session.scalars(select(Source.name)))}"
                )
            return {column.name: getattr(row, column.name) for column in Source.__table__.columns}

    def query(self, filter: str) -> Selection:
        """The structures that a filter selects, by ascending id; see docs/queries.md for the language."""
        with self.session() as session:
            return Selection(self, filter, structure_ids(session, filter))

    # Care

    def verify(self, *, deep: bool = False) -> Report:
        """Compare every shard with the catalog; with deep, re-read everything. Names orphans, removes nothing.

        Deep decodes every record, compares hashes, elements and counts with the rows, and checks the catalog's file.
        """
        return verify(self.path, engine=self.engine, uuid=self.uuid, deep=deep)

    def gc(self) -> Report:
        """Remove the files in shards/ that no row names: what a crash left behind."""
        with self._lock:
            with self.session() as session:
                expected = expected_shards(session)
            removed = remove_orphans(self.path, expected)
        return Report(shards=len(expected), records=sum(s.records for s in expected), removed=tuple(removed))


def _ready(records: Sequence[NewStructure | Prepared]) -> list[Prepared]:
    """The records, all prepared."""
    made = iter(prepare_all([record for record in records if not isinstance(record, Prepared)]))
    return [record if isinstance(record, Prepared) else next(made) for record in records]


def _label_row(record: NewLabel, *, method: int, shard: int | None) -> dict[str, Any]:
    if record.label is None or shard is None:
        reason = record.reason or "no reason given"
        return failed_values(structure_id=record.structure_id, method=method, part=record.part, reason=reason)
    return label_values(record.label, structure_id=record.structure_id, method=method, shard=shard, part=record.part)
