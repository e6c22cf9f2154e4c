"""Facets of shards: written with the rows they repeat, made again from those rows, compared with them.

A structures shard has ``ids``; ``elements/8`` and the like, the set of rows with that element; ``atoms``, how many
atoms of it, one entry for each member of those sets, the elements ascending; one entry a row in ``nsites``,
``nelements``, ``pbc``, ``space_group`` and ``source``; and those of its labels, see label_facets.py. A labels shard has
``labelled``, its structures' ids, and those of its labels.

A release that packs more or otherwise needs a migration that empties the table; then `mlipdb db upgrade` fills it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
from jaxtyping import Int64
from sqlalchemy import Select, delete, insert, select
from sqlalchemy.orm import Session

from mlipdb.catalog.facet import Facet
from mlipdb.catalog.label_facets import LabelFacts, PlacedLabel, labels_in, pack_labels
from mlipdb.catalog.method import MethodRow
from mlipdb.catalog.packing import pack_column, pack_ids, pack_set
from mlipdb.catalog.shard import DROPPED, ShardRow
from mlipdb.catalog.structure import StructureElement, StructureRow
from mlipdb.store.prepared import LABEL_COLUMNS, STRUCTURE_COLUMNS, Prepared

STRUCTURE_IDS, LABEL_IDS = "ids", "labelled"
_NSITES, _NELEMENTS, _PBC = (STRUCTURE_COLUMNS.index(name) for name in ("nsites", "nelements", "pbc"))
_label_facts = itemgetter(*(LABEL_COLUMNS.index(name) for name in LabelFacts._fields[2:]))

Elements = Mapping[int, Sequence[tuple[int, int]]]  # by atomic number: the place of a row and its atoms


@dataclass(frozen=True, kw_only=True)
class _ShardFacets:
    """What is packed for one shard. ids ascend; elements and labels are by the places of structures among them."""

    ids: Int64[np.ndarray, " rows"]
    teachers: Collection[int]
    columns: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    elements: Elements = field(default_factory=dict)
    labels: Sequence[PlacedLabel] = ()

    def pack(self, ids_name: str) -> dict[str, bytes]:
        rows = len(self.ids)
        packed = {ids_name: pack_ids(self.ids)}
        atoms: list[int] = []
        for number, members in sorted(self.elements.items()):
            places, counts = zip(*members, strict=True)
            packed[f"elements/{number}"] = pack_set(np.array(places, np.int64), rows=rows)
            atoms += counts
        if atoms:
            packed["atoms"] = pack_column(atoms)
        packed |= {name: pack_column(values) for name, values in self.columns.items()}
        return packed | (pack_labels(self.labels, rows=rows, teachers=self.teachers) if self.labels else {})


def add_structure_facets(
    session: Session, records: Sequence[Prepared], *, first_id: int, shard: int, source: int, method: int | None
) -> None:
    """Write the facets of a shard of structures that is being added; method is the append's."""
    elements: dict[int, list[tuple[int, int]]] = defaultdict(list)
    labels = []
    for place, record in enumerate(records):
        for number, count in record.elements:
            elements[number].append((place, count))
        maker = record.method_id or method
        if record.label_columns is not None and maker is not None:
            labels.append((place, LabelFacts(maker, 0, *_label_facts(record.label_columns))))
    columns: dict[str, Sequence[int | None]] = {
        "nsites": [record.columns[_NSITES] for record in records],
        "nelements": [record.columns[_NELEMENTS] for record in records],
        "pbc": [record.columns[_PBC] for record in records],
        "space_group": [record.space_group.number if record.space_group else None for record in records],
        "source": [source] * len(records),
    }
    ids = np.arange(first_id, first_id + len(records), dtype=np.int64)
    found = _ShardFacets(ids=ids, teachers=_teachers(session), columns=columns, elements=elements, labels=labels)
    _write(session, shard, found.pack(STRUCTURE_IDS))


def add_label_facets(session: Session, rows: Iterable[Mapping[str, Any]], *, shard: int) -> None:
    """Write the facets of a shard of labels that is being added; rows are those of the labels, one a structure."""
    ordered = sorted(rows, key=itemgetter("structure_id"))
    labels = [(place, LabelFacts(*(row[name] for name in LabelFacts._fields))) for place, row in enumerate(ordered)]
    ids = np.array([row["structure_id"] for row in ordered], np.int64)
    _write(session, shard, _ShardFacets(ids=ids, teachers=_teachers(session), labels=labels).pack(LABEL_IDS))


def fill_facets(session: Session, *, at_most: int | None = None) -> int:
    """Make the facets of the shards that have none, or of some of them, from the other tables; the number made."""
    missing = session.scalars(shards_without_facets().limit(at_most)).all()
    drop_facets(session, [shard.id for shard in missing])  # those that damage left over
    for shard in missing:
        _write(session, shard.id, _from_tables(session, shard))
    return len(missing)


def drop_facets(session: Session, shards: Sequence[int] | None = None) -> None:
    """Forget the facets of some shards, or of all, whose rows are about to change; fill_facets makes them again."""
    session.execute(delete(Facet) if shards is None else delete(Facet).where(Facet.shard_id.in_(shards)))


def wrong_facets(session: Session) -> dict[str, int]:
    """Paths and ids of the shards whose facets differ from the other tables; those without any are not wrong."""
    unfilled = {shard.id for shard in session.scalars(shards_without_facets())}
    wrong = {}
    for shard in session.scalars(select(ShardRow).where(ShardRow.kind != DROPPED).order_by(ShardRow.id)).all():
        rows = session.execute(select(Facet.name, Facet.data).where(Facet.shard_id == shard.id))
        stored = {row.name: row.data for row in rows}
        if shard.id not in unfilled and stored != _from_tables(session, shard):
            wrong[shard.path] = shard.id
    return wrong


def shards_without_facets() -> Select[ShardRow]:
    """The shards of which the facets know nothing."""
    known = select(Facet.shard_id).where(Facet.name.in_((STRUCTURE_IDS, LABEL_IDS)))
    return select(ShardRow).where(ShardRow.id.not_in(known), ShardRow.kind != DROPPED).order_by(ShardRow.id)


def _write(session: Session, shard: int, packed: Mapping[str, bytes]) -> None:
    rows = [{"name": name, "shard_id": shard, "data": data} for name, data in packed.items()]
    session.execute(insert(Facet.__table__), rows)  # type: ignore[arg-type]  # declared wider


def _teachers(session: Session) -> set[int]:
    return set(session.scalars(select(MethodRow.id).where(MethodRow.kind == "teacher")))


def _from_tables(session: Session, shard: ShardRow) -> dict[str, bytes]:
    """What is packed for a shard, from the rows that it has."""
    teachers, labels = _teachers(session), labels_in(session, shard)
    if shard.kind != "structures":
        labelled = np.unique(np.array([identity for identity, _ in labels], np.int64))
        found = _ShardFacets(ids=labelled, teachers=teachers, labels=_placed(labels, _places(labelled)))
        return found.pack(LABEL_IDS)
    row = StructureRow
    wanted = (row.id, row.nsites, row.nelements, row.pbc, row.space_group_it_number, row.source_id)
    inside = row.id.between(shard.first_structure_id, shard.last_structure_id) & (row.shard_id == shard.id)
    rows = session.execute(select(*wanted).where(inside).order_by(row.id)).all()
    numbers, *columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in wanted]
    every = np.array(numbers, np.int64)
    names = ("nsites", "nelements", "pbc", "space_group", "source")
    return _ShardFacets(
        ids=every,
        teachers=teachers,
        columns=dict(zip(names, columns, strict=True)),
        elements=_elements_in(session, shard, _places(every)),
        labels=_placed(labels, _places(every)),
    ).pack(STRUCTURE_IDS)


def _elements_in(session: Session, shard: ShardRow, place: Mapping[int, int]) -> Elements:
    """The elements of a shard's structures, from their table."""
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    element = StructureElement
    near = element.structure_id.between(shard.first_structure_id, shard.last_structure_id)
    query = select(element.atomic_number, element.structure_id, element.count).where(near)
    for number, identity, count in session.execute(query.order_by(element.structure_id)):
        if identity in place:
            found[number].append((place[identity], count))
    return found


def _places(ids: Int64[np.ndarray, " rows"]) -> dict[int, int]:
    """The place of each of some ids among them."""
    return {identity: number for number, identity in enumerate(ids.tolist())}


def _placed(labels: Sequence[tuple[int, LabelFacts]], place: Mapping[int, int]) -> list[PlacedLabel]:
    """Labels by the place of their structure; a label of another structure is in no answer."""
    return [(place[identity], facts) for identity, facts in labels if identity in place]
