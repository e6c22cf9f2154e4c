"""Rows of the catalog from plain data: what an append inserts."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from mlipdb.catalog.base import Base
from mlipdb.catalog.label import LabelRow
from mlipdb.catalog.method import MethodRow
from mlipdb.catalog.shard import ShardRow
from mlipdb.catalog.source import Quarantine, Source
from mlipdb.catalog.structure import Material, StructureElement, StructureRow, SymmetrySetting
from mlipdb.labels import ENERGY_KINDS, Label, Method, label_hash, present_arrays
from mlipdb.records import NewStructure, RejectedRecord, SymmetryTool
from mlipdb.store.codec import FORMAT_VERSION
from mlipdb.store.shard import SealedShard
from mlipdb.structures import chemical_system, reduced_formula

CHUNK = 500  # below every database's limit of bound parameters


def now() -> datetime:
    """The time to write into a row, with its zone."""
    return datetime.now(UTC)


def add_shard(session: Session, shard: SealedShard) -> int:
    """Register a sealed shard; its id."""
    row = ShardRow(
        kind=shard.kind,
        path=shard.path,
        records=shard.records,
        bytes=shard.bytes,
        sha256=shard.sha256,
        format_version=FORMAT_VERSION,
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


def structure_values(record: NewStructure, identity: int) -> dict[str, Any]:
    """The columns of a structure that depend on nothing else in the catalog."""
    structure = record.structure
    group = record.space_group
    return {
        "id": identity,
        "external_id": record.external_id,
        "content_hash": structure.content_hash,
        "nsites": len(structure),
        "nelements": len(structure.composition),
        "chemical_formula_reduced": reduced_formula(structure.composition),
        "chemical_system": chemical_system(structure.composition),
        "space_group_it_number": group.number if group else None,
        "space_group_symbol": group.symbol if group else None,
        "volume": structure.volume,
        "pbc": sum(1 << axis for axis, periodic in enumerate(structure.pbc) if periodic),
        "charge": structure.charge,
        "spin_multiplicity": structure.spin_multiplicity,
    }


def label_values(label: Label, *, structure_id: int, method: int, shard: int, part: int = 0) -> dict[str, Any]:
    """The columns of a label that is done."""
    return {
        **{kind: getattr(label, kind) for kind in ENERGY_KINDS},
        "structure_id": structure_id,
        "method_id": method,
        "part": part,
        "status": "done",
        "reason": None,
        "band_gap": label.band_gap,
        "max_force": label.max_force,
        "arrays": " ".join(present_arrays(label)),
        "hessian_rows": 0 if label.hessian_row_numbers is None else len(label.hessian_row_numbers),
        "content_hash": label_hash(label),
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
    records: Sequence[NewStructure],
    *,
    first_id: int,
    shard: int,
    source: int,
    method: int | None,
    symmetry: int | None,
) -> None:
    """Insert structures with consecutive ids, their elements and their source's labels."""
    materials = material_ids(session, (record.material for record in records))
    structures, elements, labels = [], [], []
    for identity, record in enumerate(records, start=first_id):
        values = structure_values(record, identity)
        searched = symmetry if all(record.structure.pbc) else None
        values.update(
            source_id=source, material_id=materials[record.material], symmetry_setting_id=searched, shard_id=shard
        )
        structures.append(values)
        elements += [
            {"atomic_number": number, "structure_id": identity, "count": count}
            for number, count in record.structure.composition.items()
        ]
        if record.label is not None and method is not None:
            labels.append(label_values(record.label, structure_id=identity, method=method, shard=shard))
    for table, rows in ((StructureRow, structures), (StructureElement, elements), (LabelRow, labels)):
        _insert_many(session, table, rows)


def _insert_many(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of plain numbers, texts and bytes through the driver: a fifth less time than session.execute."""
    if not rows:
        return
    connection = session.connection()
    statement = insert(table).compile(dialect=connection.dialect, column_keys=list(rows[0]))
    names = statement.positiontup
    values = [tuple([row[name] for name in names]) for row in rows] if names else [dict(row) for row in rows]
    connection.exec_driver_sql(str(statement), values)


def count_source(
    session: Session, source: int, *, taken: int, duplicates: int, rejected: Sequence[RejectedRecord]
) -> None:
    """Add to a source's counts; a rejected record that is known already is not counted again."""
    known = select(Quarantine.key, Quarantine.location).where(Quarantine.source_id == source)
    seen = {(key, location) for key, location in session.execute(known)} if rejected else set()
    fresh: dict[tuple[str, str], str] = {}
    for record in rejected:
        if (record.key, record.location) not in seen:
            fresh[record.key, record.location] = record.reason
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
