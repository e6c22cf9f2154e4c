"""Questions to the catalog that the database answers often."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlipdb.catalog.label import LabelRow
from mlipdb.catalog.method import MethodRow
from mlipdb.catalog.rows import CHUNK
from mlipdb.catalog.shard import DROPPED, ShardRow
from mlipdb.catalog.source import Source
from mlipdb.catalog.structure import Material, StructureRow, SymmetrySetting
from mlipdb.errors import NotFoundError
from mlipdb.labels import Method
from mlipdb.records import Entry, SymmetryTool
from mlipdb.store.verify import ExpectedShard

SOURCE_FACTS = ("name", "version", "reader", "uri", "sha256", "licence", "citation", "options")

NO_ID = 2**63 - 1  # databases know no larger number, and no structure has it


def find_entry(session: Session, structure_id: int) -> Entry:
    """Everything the catalog says of a structure."""
    found = session.execute(
        select(StructureRow, Source.name, Material.key, ShardRow.path, SymmetrySetting)
        .join(Source, Source.id == StructureRow.source_id)
        .join(Material, Material.id == StructureRow.material_id)
        .join(ShardRow, ShardRow.id == StructureRow.shard_id)
        .outerjoin(SymmetrySetting, SymmetrySetting.id == StructureRow.symmetry_setting_id)
        .where(StructureRow.id == min(structure_id, NO_ID))
    ).one_or_none()
    if found is None:
        raise NotFoundError(f"there is no structure {structure_id}; `mlipdb query all --limit 5` lists some")
    row, source, material, shard, setting = found
    same = (
        "id external_id chemical_formula_reduced chemical_system nsites nelements space_group_it_number "
        "space_group_symbol volume charge spin_multiplicity"
    )
    return Entry(
        **{name: getattr(row, name) for name in same.split()},
        source=source,
        material=material,
        symmetry=SymmetryTool(setting.tool, setting.version, setting.symprec) if setting else None,
        pbc=(bool(row.pbc & 1), bool(row.pbc & 2), bool(row.pbc & 4)),
        content_hash=row.content_hash.hex(),
        shard=shard,
    )


def find_external(session: Session, external_id: str) -> int:
    """The structure that a source calls external_id; NotFoundError when none does or two sources do."""
    found = session.execute(
        select(StructureRow.id, Source.name).join(Source).where(StructureRow.external_id == external_id)
    ).all()
    if len(found) == 1:
        return int(found[0][0])
    if not found:
        raise NotFoundError(f"no structure has the id {external_id!r}; search with `mlipdb query`")
    choices = ", ".join(f"{identity} ({source})" for identity, source in found)
    raise NotFoundError(f"{external_id!r} is the id of {len(found)} structures: {choices}; give one of those numbers")


def label_parts(session: Session, structure_ids: Sequence[int], *, method: int) -> dict[int, list[int]]:
    """The shards that hold the parts of a method's labels, part 0 first, for each structure that has any."""
    parts: dict[int, list[int]] = defaultdict(list)
    for start in range(0, len(structure_ids), CHUNK):
        chunk = [int(identity) for identity in structure_ids[start : start + CHUNK]]
        rows = session.execute(
            select(LabelRow.structure_id, LabelRow.shard_id)
            .where(LabelRow.method_id == method, LabelRow.status == "done", LabelRow.structure_id.in_(chunk))
            .order_by(LabelRow.structure_id, LabelRow.part)
        )
        for structure_id, shard_id in rows:
            parts[structure_id].append(cast("int", shard_id))  # a label that is done has a shard
    return parts


def methods_of(session: Session, structure_id: int) -> dict[int, list[int]]:
    """The shards of each method's label of a structure, by method id."""
    rows = session.execute(
        select(LabelRow.method_id, LabelRow.shard_id)
        .where(LabelRow.structure_id == structure_id, LabelRow.status == "done")
        .order_by(LabelRow.method_id, LabelRow.part)
    )
    parts: dict[int, list[int]] = defaultdict(list)
    for method, shard_id in rows:
        parts[method].append(cast("int", shard_id))  # as above
    return parts


def source_facts(session: Session, source_id: int) -> dict[str, Any]:
    """The columns of a source that say where it came from: those that a shard repeats."""
    row = session.get_one(Source, source_id)
    return {name: getattr(row, name) for name in SOURCE_FACTS}


def method_facts(session: Session, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Methods by id as plain data, ascending."""
    rows = session.scalars(select(MethodRow).where(MethodRow.id.in_(set(ids))).order_by(MethodRow.id))
    return {row.id: {name: getattr(row, name) for name in Method.__dataclass_fields__} for row in rows}


def expected_shards(session: Session) -> list[ExpectedShard]:
    """What the catalog says of every shard that is in use, with the structures that rows place in it."""
    placed: dict[int, set[int]] = defaultdict(set)
    columns: Any
    for columns in (
        select(StructureRow.shard_id, StructureRow.id),
        select(LabelRow.shard_id, LabelRow.structure_id).where(LabelRow.shard_id.is_not(None)),
    ):
        for shard_id, structure_id in session.execute(columns):
            placed[shard_id].add(structure_id)
    return [
        ExpectedShard(row.id, row.path, row.records, row.bytes, row.sha256, frozenset(placed[row.id]))
        for row in session.scalars(select(ShardRow).where(ShardRow.kind != DROPPED).order_by(ShardRow.id))
    ]
