"""Rows of the catalog from plain data: what an append inserts."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from mlipdb.catalog.base import Base
from mlipdb.catalog.duplicate import Duplicate
from mlipdb.catalog.facets import add_structure_facets
from mlipdb.catalog.label import LabelRow
from mlipdb.catalog.method import MethodRow
from mlipdb.catalog.shard import DROPPED, ShardRow
from mlipdb.catalog.source import Quarantine, Source
from mlipdb.catalog.structure import Material, StructureElement, StructureRow, SymmetrySetting
from mlipdb.catalog.tag import StructureTag, Tag
from mlipdb.labels import ENERGY_KINDS, Label, Method
from mlipdb.records import TEXT_LIMIT, CopiedRecord, RejectedRecord, SymmetryTool
from mlipdb.store.layout import VERSION
from mlipdb.store.prepared import LABEL_COLUMNS, STRUCTURE_COLUMNS, Prepared, label_columns
from mlipdb.store.shard import SealedShard

CHUNK = 500  # below every database's limit of bound parameters


def now() -> datetime:
    """The time to write into a row, with its zone."""
    return datetime.now(UTC)


def add_shard(session: Session, shard: SealedShard) -> int:
    """Register a sealed shard; its id. Labels that were dropped and made again may have the same file."""
    session.execute(delete(ShardRow).where(ShardRow.path == shard.path, ShardRow.kind == DROPPED))
    row = ShardRow(
        kind=shard.kind,
        path=shard.path,
        records=shard.records,
        bytes=shard.bytes,
        sha256=shard.sha256,
        format_version=VERSION,
        first_structure_id=shard.first_structure_id,
        last_structure_id=shard.last_structure_id,
        sealed_at=now(),
    )
    session.add(row)
    session.flush()
    return row.id


def material_ids(session: Session, keys: Iterable[str]) -> dict[str, int]:
    """The id of each material, made where it is new."""
    wanted = sorted(set(keys))
    known: dict[str, int] = {}
    for start in range(0, len(wanted), CHUNK):
        part = select(Material.key, Material.id).where(Material.key.in_(wanted[start : start + CHUNK]))
        known.update((key, identity) for key, identity in session.execute(part))
    fresh = [key for key in wanted if key not in known]
    if fresh:
        first = (session.scalar(select(func.max(Material.id))) or 0) + 1
        session.execute(insert(Material), [{"id": first + place, "key": key} for place, key in enumerate(fresh)])
        known.update((key, first + place) for place, key in enumerate(fresh))
    return known


def symmetry_id(session: Session, tool: SymmetryTool) -> int:
    """The id of a symmetry setting, made where it is new."""
    values = {"tool": tool.tool, "version": tool.version, "symprec": tool.symprec}
    found = session.scalar(select(SymmetrySetting.id).filter_by(**values))
    if found is not None:
        return found
    row = SymmetrySetting(**values)
    session.add(row)
    session.flush()
    return row.id


def method_hash(method: Method) -> str:
    """SHA-256 of everything that distinguishes a method."""
    return hashlib.sha256(json.dumps(_method_values(method), sort_keys=True).encode()).hexdigest()


def _method_values(method: Method) -> dict[str, Any]:
    values = {name: getattr(method, name) for name in Method.__dataclass_fields__}
    return {**values, "settings": dict(method.settings)}


def known_method(session: Session, method: Method) -> int | None:
    """The id of a method, None where it is new."""
    return session.scalar(select(MethodRow.id).where(MethodRow.hash == method_hash(method)))


def method_id(session: Session, method: Method) -> int:
    """The id of a method, made where it is new."""
    found = known_method(session, method)
    if found is not None:
        return found
    row = MethodRow(hash=method_hash(method), **_method_values(method))
    session.add(row)
    session.flush()
    return row.id


def method_of(row: MethodRow) -> Method:
    """The plain data of a method row."""
    return Method(**{name: getattr(row, name) for name in Method.__dataclass_fields__})


def label_values(label: Label, *, structure_id: int, method: int, shard: int, part: int = 0) -> dict[str, Any]:
    """The columns of a label that is done."""
    return {
        **dict(zip(LABEL_COLUMNS, label_columns(label), strict=True)),
        "structure_id": structure_id,
        "method_id": method,
        "part": part,
        "status": "done",
        "reason": None,
        "shard_id": shard,
    }


def failed_values(*, structure_id: int, method: int, part: int, reason: str) -> dict[str, Any]:
    """The columns of a label that a teacher could not give."""
    nothing = dict.fromkeys((*ENERGY_KINDS, "band_gap", "max_force", "content_hash", "shard_id"))
    return {
        **nothing,
        "structure_id": structure_id,
        "method_id": method,
        "part": part,
        "status": "failed",
        "reason": reason,
        "arrays": "",
        "hessian_rows": 0,
    }


def add_structures(
    session: Session,
    records: Sequence[Prepared],
    *,
    first_id: int,
    shard: int,
    source: int,
    method: int | None,
    symmetry: int | None,
) -> None:
    """Insert structures with consecutive ids, their elements, tags and their source's labels.

    A label without a method, neither its own nor the append's, is in the shard but has no row.
    """
    materials = material_ids(session, {record.material for record in records})
    structures, elements, labels = [], [], []
    for identity, record in enumerate(records, start=first_id):
        group = record.space_group
        searched = symmetry if record.periodic else None
        structures.append(
            (
                identity, source, materials[record.material], shard, searched, record.external_id, record.row,
                group and group.number, group and group.symbol, *record.columns,
            )
        )  # fmt: skip
        elements += [(number, identity, count) for number, count in record.elements]
        maker = record.method_id or method
        if record.label_columns is not None and maker is not None:
            labels.append((identity, maker, shard, 0, "done", *record.label_columns))
    insert_many(session, StructureRow, _STRUCTURE, structures)
    insert_many(session, StructureElement, ("atomic_number", "structure_id", "count"), elements)
    insert_many(session, LabelRow, _LABEL, labels)
    _add_tags(session, records, first_id=first_id)
    add_structure_facets(session, records, first_id=first_id, shard=shard, source=source, method=method)


_STRUCTURE = (
    "id", "source_id", "material_id", "shard_id", "symmetry_setting_id", "external_id", "source_row",
    "space_group_it_number", "space_group_symbol", *STRUCTURE_COLUMNS,
)  # fmt: skip
_LABEL = ("structure_id", "method_id", "shard_id", "part", "status", *LABEL_COLUMNS)


def _add_tags(session: Session, records: Sequence[Prepared], *, first_id: int) -> None:
    wanted = {tag for record in records for tag in record.tags.items()}
    if not wanted:
        return
    known = tag_ids(session, wanted)
    rows = [
        (known[tag], identity)
        for identity, record in enumerate(records, start=first_id)
        for tag in sorted(record.tags.items())
    ]
    insert_many(session, StructureTag, ("tag_id", "structure_id"), rows)


def tag_ids(session: Session, tags: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The id of each tag, a name and a value, made where it is new."""
    wanted = sorted(set(tags))
    known: dict[tuple[str, str], int] = {}
    for name, group in groupby(wanted, key=itemgetter(0)):
        values = [value for _, value in group]  # of a name such as smiles the catalog may have millions of others
        for start in range(0, len(values), CHUNK):
            part = select(Tag.value, Tag.id).where(Tag.name == name, Tag.value.in_(values[start : start + CHUNK]))
            known.update(((name, value), identity) for value, identity in session.execute(part))
    fresh = [tag for tag in wanted if tag not in known]
    if fresh:
        first = (session.scalar(select(func.max(Tag.id))) or 0) + 1
        rows = [{"id": first + place, "name": name, "value": value} for place, (name, value) in enumerate(fresh)]
        session.execute(insert(Tag), rows)
        known.update((tag, first + place) for place, tag in enumerate(fresh))
    return known


def insert_many(session: Session, table: type[Base], columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows of plain numbers, texts and bytes through the driver: far less time than session.execute."""
    if not rows:
        return
    connection = session.connection()
    statement = insert(table).compile(dialect=connection.dialect, column_keys=list(columns))
    order = statement.positiontup
    if order is None:
        connection.exec_driver_sql(str(statement), [dict(zip(columns, row, strict=True)) for row in rows])
        return
    if list(order) != list(columns):
        rows = list(map(itemgetter(*map(columns.index, order)), rows))
    connection.exec_driver_sql(str(statement), list(rows))


def add_copies(session: Session, source: int, copies: Sequence[CopiedRecord]) -> None:
    """Remember records that are copies of other sources' structures; those that are known already stay as they are."""
    wanted = {(copy.structure_id, copy.external_id): copy.row for copy in copies}
    structures = sorted({structure for structure, _ in wanted})
    for start in range(0, len(structures), CHUNK):
        part = Duplicate.structure_id.in_(structures[start : start + CHUNK])
        known = select(Duplicate.structure_id, Duplicate.external_id).where(Duplicate.source_id == source, part)
        for structure, name in session.execute(known):
            wanted.pop((structure, name), None)
    rows = [(source, structure, name, row) for (structure, name), row in wanted.items()]
    insert_many(session, Duplicate, ("source_id", "structure_id", "external_id", "row"), rows)


def _cut(text: str) -> str:
    """A text of which an index holds two."""
    return text if len(text) <= TEXT_LIMIT // 8 else text.encode()[: TEXT_LIMIT // 2].decode(errors="ignore")


def count_source(
    session: Session, source: int, *, taken: int, duplicates: int, rejected: Sequence[RejectedRecord]
) -> None:
    """Add to a source's counts; a rejected record that is known already is not counted again."""
    known = select(Quarantine.key, Quarantine.location).where(Quarantine.source_id == source)
    seen = {(key, location) for key, location in session.execute(known)} if rejected else set()
    fresh: dict[tuple[str, str], str] = {}
    for record in rejected:
        place = _cut(record.key), _cut(record.location)
        if place not in seen:
            fresh[place] = record.reason
    if fresh:
        rows = [
            {"source_id": source, "key": key, "location": location, "reason": reason}
            for (key, location), reason in fresh.items()
        ]
        session.execute(insert(Quarantine), rows)
    counts: Mapping[Any, Any] = {
        Source.taken: Source.taken + taken,
        Source.duplicates: Source.duplicates + duplicates,
        Source.quarantined: Source.quarantined + len(fresh),
    }
    session.execute(update(Source).where(Source.id == source).values(counts))
