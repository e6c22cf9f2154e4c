"""Make a bundle: a frozen subset of a database in one file, which another database takes in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlipdb.arrays import StoredArrays
from mlipdb.catalog import LabelRow, Material, Source, StructureRow, SubsetMember, SymmetrySetting
from mlipdb.database import Database
from mlipdb.export.bundle_file import BundleWriter
from mlipdb.export.items import tags_of
from mlipdb.export.target import deliver
from mlipdb.labels import Label
from mlipdb.methods import find_method
from mlipdb.store.codec import Encoder, seal
from mlipdb.structures import Structure
from mlipdb.subsets import FrozenSubset, load
from mlipdb.version import __version__

READ = 1024  # structures asked of the catalog at once
ENCODE = 64  # records encoded at once: much faster than one by one, and few enough for whole Hessians
ROWS, BYTES = 4096, 1 << 25  # of one member: what a database that takes the bundle holds in memory
NOTHING = (None, None)  # a failure has neither structure nor label
SOURCE_FACTS = ("name", "version", "reader", "uri", "sha256", "licence", "citation", "options")


@dataclass(frozen=True, kw_only=True)
class BundleReport:
    """What a bundle holds: its structures, label records added to them, sources and methods."""

    path: str
    subset: str
    subset_hash: str
    structures: int
    labels: int
    sources: tuple[str, ...]
    methods: tuple[str, ...]
    bytes: int
    sha256: str


def make_bundle(
    db: Database, subset: str, *, path: Path, methods: Sequence[str] = (), force: bool = False
) -> BundleReport:
    """Write a frozen subset with its split, its sources and its labels by some methods (by default all) to one file.

    The file appears whole or not at all. Raises NotFoundError for a name that is no frozen subset.
    """
    frozen = load(db, subset)
    chosen = [find_method(db, name) for name in methods] if methods else _methods_of(db, frozen)
    with deliver(path.parent, [path.name], force=force) as scratch:
        making = _Making(db, frozen, chosen, BundleWriter(scratch / path.name), everything=not methods)
        sha256 = making.run()
        size = (scratch / path.name).stat().st_size
    return BundleReport(
        path=str(path),
        subset=frozen.name,
        subset_hash=frozen.hash,
        structures=making.structures,
        labels=making.labels,
        sources=tuple(sorted(making.sources)),
        methods=tuple(db.method(number).name for number in chosen),
        bytes=size,
        sha256=sha256,
    )


def _methods_of(db: Database, subset: FrozenSubset) -> list[int]:
    query = select(LabelRow.method_id).distinct().join(SubsetMember, SubsetMember.structure_id == LabelRow.structure_id)
    with db.session() as session:
        return sorted(session.scalars(query.where(SubsetMember.subset_id == subset.id)))


@dataclass
class _Member:
    """Rows and records of one member, until it is full."""

    writer: BundleWriter
    folder: str
    encoder: Encoder
    waiting: list[tuple[dict[str, Any], Structure | None, Label | None]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    written: int = 0
    size: int = 0

    def add(self, row: dict[str, Any], structure: Structure | None, label: Label | None) -> None:
        """Add a row with the record of what is given; with neither the record is empty."""
        self.waiting.append((row, structure, label))
        if len(self.waiting) == ENCODE:
            self._encode()
        if len(self.rows) >= ROWS or self.size >= BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what there is."""
        self._encode()
        if not self.rows:
            return
        name = f"{self.folder}/{self.written:05d}"
        self.writer.add(f"{name}.records", b"".join(self.records))
        self.writer.add_rows(f"{name}.jsonl.zst", self.rows)
        self.rows, self.records, self.size = [], [], 0
        self.written += 1

    def _encode(self) -> None:
        waiting, self.waiting = self.waiting, []
        full = [(structure, label) for _, structure, label in waiting if (structure, label) != NOTHING]
        encoded = iter(self.encoder.prepare(full))
        for row, structure, label in waiting:
            record = seal(row["number"], next(encoded)) if (structure, label) != NOTHING else b""
            self.rows.append({**row, "bytes": len(record)})
            self.records.append(record)
            self.size += len(record)


class _Making:
    """One bundle on its way."""

    def __init__(
        self, db: Database, subset: FrozenSubset, methods: list[int], writer: BundleWriter, *, everything: bool
    ) -> None:
        self._db, self._subset, self._methods, self._writer = db, subset, methods, writer
        self._everything = everything  # also labels whose method nobody named
        self._arrays = StoredArrays(db.path, engine=db.engine, uuid=db.uuid)
        encoder = Encoder()
        self._into = {name: _Member(writer, name, encoder) for name in ("structures", "labels")}
        self.sources: set[str] = set()
        self.structures = self.labels = 0

    def run(self) -> str:
        """Write every member and the manifest; the hash of the file."""
        parts = {number: part for part, ids in self._subset.splits.items() for number in ids.tolist()}
        for start in range(0, len(self._subset.ids), READ):
            ids = self._subset.ids[start : start + READ].tolist()
            numbers = dict(zip(ids, range(start + 1, start + len(ids) + 1), strict=True))
            with self._db.session() as session:
                came = _labels(session, ids, self._methods)
                self._add_structures(session, numbers, came, parts)
            self._add_labels(numbers, came)
        for member in self._into.values():
            member.flush()
        self._writer.add_rows("methods.jsonl.zst", [asdict(self._db.method(number)) for number in self._methods])
        self._writer.add_rows("sources.jsonl.zst", list(self._source_rows()))
        return self._writer.finish(self._facts())

    def _add_structures(
        self, session: Session, numbers: Mapping[int, int], labels: Sequence[LabelRow], parts: Mapping[int, str]
    ) -> None:
        rows, tags = _structure_rows(session, list(numbers)), tags_of(self._db, list(numbers))
        came = {row.structure_id: row.method_id for row in labels if row.shard_id == rows[row.structure_id][0].shard_id}
        for structure, label in self._db.read(list(numbers)):
            identity = int(structure.id or 0)
            row, source, material, tool = rows[identity]
            method = came.get(identity)
            kept = label if method is not None or self._everything else None
            self.sources.add(source)
            self.structures += 1
            facts = {
                "number": numbers[identity],
                "source": source,
                "external_id": row.external_id,
                "material": material,
                "row": row.source_row,
                "tags": tags.get(identity, {}),
                "space_group": [row.space_group_it_number, row.space_group_symbol]
                if row.space_group_it_number
                else None,
                "symmetry": [tool.tool, tool.version, tool.symprec] if tool else None,
                "content_hash": row.content_hash.hex(),
                "split": parts[identity],
                "method": None if method is None else self._methods.index(method),
            }
            self._into["structures"].add(facts, structure, kept)

    def _add_labels(self, numbers: Mapping[int, int], labels: Sequence[LabelRow]) -> None:
        """The labels that were added to structures, part by part, and the failures that are remembered."""
        own = self._own_shards(list(numbers))
        for row in labels:
            if row.shard_id is not None and row.shard_id == own[row.structure_id]:
                continue
            label = None if row.shard_id is None else self._arrays.label(row.structure_id, [row.shard_id])
            facts = {
                "number": numbers[row.structure_id],
                "method": self._methods.index(row.method_id),
                "part": row.part,
                "reason": row.reason if label is None else None,
            }
            self._into["labels"].add(facts, None, label)
            self.labels += 1

    def _own_shards(self, ids: Sequence[int]) -> dict[int, int]:
        query = select(StructureRow.id, StructureRow.shard_id).where(StructureRow.id.in_(ids))
        with self._db.session() as session:
            return {row.id: row.shard_id for row in session.execute(query)}

    def _source_rows(self) -> Iterator[dict[str, Any]]:
        for name in sorted(self.sources):
            facts = self._db.source_facts(name)
            # Which files were read whole is true of the database they were read into alone.
            options = {key: value for key, value in facts["options"].items() if key != "files"}
            yield {**{key: facts[key] for key in SOURCE_FACTS}, "options": options}

    def _facts(self) -> dict[str, Any]:
        subset = self._subset.describe()
        return {
            "created_with": f"mlipdb {__version__}",
            "database": self._db.uuid,
            "subset": {key: value for key, value in subset.items() if key not in ("empty_parts",)},
            "structures": self.structures,
            "labels": self.labels,
        }


_Found = tuple[StructureRow, str, str, SymmetrySetting | None]


def _structure_rows(session: Session, ids: Sequence[int]) -> dict[int, _Found]:
    row = StructureRow
    query = select(row, Source.name, Material.key, SymmetrySetting)
    query = query.join(Source, Source.id == row.source_id).join(Material, Material.id == row.material_id)
    query = query.outerjoin(SymmetrySetting, SymmetrySetting.id == row.symmetry_setting_id)
    rows = session.execute(query.where(row.id.in_(ids)))
    return {found.id: (found, source, material, tool) for found, source, material, tool in rows}


def _labels(session: Session, ids: Sequence[int], methods: Sequence[int]) -> list[LabelRow]:
    row = LabelRow
    query = select(row).where(row.structure_id.in_(ids), row.method_id.in_(methods))
    return list(session.scalars(query.order_by(row.structure_id, row.method_id, row.part)))
