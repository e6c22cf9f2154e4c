"""Facets of shards: written with the rows they repeat, made again from those rows, compared with them.

A structures shard has ``ids``; ``elements/8`` and the like, the set of rows with that element; one entry a row in
``nsites``, ``nelements``, ``pbc``, ``space_group`` and ``source``; and of its DFT labels ``band_gap``,
``band_gap/steps`` (see gap_step; a byte each, where the gaps themselves are many) and ``arrays``, a sum of
LABEL_ARRAYS. A labels shard has ``labelled``, its structures' ids, and the same of its DFT labels.

A release that packs more or otherwise needs a migration that empties the table; then `mlipdb db upgrade` fills it.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
from jaxtyping import Int64
from sqlalchemy import Select, delete, insert, select
from sqlalchemy.orm import Session

from mlipdb.catalog.facet import Facet
from mlipdb.catalog.label import LabelRow
from mlipdb.catalog.method import MethodRow
from mlipdb.catalog.packing import pack_column, pack_ids, pack_set
from mlipdb.catalog.shard import ShardRow
from mlipdb.catalog.structure import StructureElement, StructureRow
from mlipdb.labels import Label, present_arrays
from mlipdb.store.prepared import LABEL_COLUMNS, STRUCTURE_COLUMNS, Prepared

STRUCTURE_IDS, LABEL_IDS = "ids", "labelled"
LABEL_ARRAYS = {"forces": 1, "stress": 2, "magmoms": 4}
_NSITES, _NELEMENTS, _PBC = (STRUCTURE_COLUMNS.index(name) for name in ("nsites", "nelements", "pbc"))
_GAP, _ARRAYS = (LABEL_COLUMNS.index(name) for name in ("band_gap", "arrays"))

LabelValues = tuple[float | None, int]  # band gap in eV, sum of LABEL_ARRAYS


@dataclass(frozen=True, kw_only=True)
class _ShardFacets:
    """What is packed for one shard. ids ascend; elements are places among them; labels are (place, values)."""

    ids: Int64[np.ndarray, " rows"]
    columns: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    elements: Mapping[int, Sequence[int]] = field(default_factory=dict)
    labels: Sequence[tuple[int, LabelValues]] = ()

    def pack(self, ids_name: str) -> dict[str, bytes]:
        rows = len(self.ids)
        packed = {ids_name: pack_ids(self.ids)}
        for number, places in self.elements.items():
            packed[f"elements/{number}"] = pack_set(np.array(places, np.int64), rows=rows)
        packed |= {name: pack_column(values) for name, values in self.columns.items()}
        if self.labels:
            rows_of = np.fromiter(map(itemgetter(0), self.labels), np.int64)
            whole = None if np.array_equal(rows_of, np.arange(rows)) else rows_of
            gaps, arrays = zip(*map(itemgetter(1), self.labels), strict=True)
            packed |= {"band_gap": pack_column(gaps, whole, floats=True), "arrays": pack_column(arrays, whole)}
            steps = [None if gap is None else gap_step(gap) for gap in gaps]
            packed["band_gap/steps"] = pack_column(steps, whole)
        return packed


def gap_step(gap: float) -> int:
    """The step of 0.05 eV that a gap is on; never less for a larger gap, however the product is rounded."""
    return math.floor(20 * gap)


def add_structure_facets(
    session: Session, records: Sequence[Prepared], *, first_id: int, shard: int, source: int, method: int | None
) -> None:
    """Write the facets of a shard of structures that is being added; method is the append's."""
    teachers = _teachers(session)
    elements: dict[int, list[int]] = defaultdict(list)
    labels = []
    for place, record in enumerate(records):
        for number, _ in record.elements:
            elements[number].append(place)
        maker = record.method_id or method
        if record.label_columns is not None and maker is not None and maker not in teachers:
            labels.append((place, (record.label_columns[_GAP], _code(record.label_columns[_ARRAYS]))))
    columns: dict[str, Sequence[int | None]] = {
        "nsites": [record.columns[_NSITES] for record in records],
        "nelements": [record.columns[_NELEMENTS] for record in records],
        "pbc": [record.columns[_PBC] for record in records],
        "space_group": [record.space_group.number if record.space_group else None for record in records],
        "source": [source] * len(records),
    }
    ids = np.arange(first_id, first_id + len(records), dtype=np.int64)
    _write(session, shard, _ShardFacets(ids=ids, columns=columns, elements=elements, labels=labels).pack(STRUCTURE_IDS))


def add_label_facets(session: Session, labels: Iterable[tuple[int, Label | None]], *, shard: int, method: int) -> None:
    """Write the facets of a shard of labels of one method that is being added; labels have their structures' ids."""
    of_dft = [] if method in _teachers(session) else [(i, label) for i, label in labels if label is not None]
    of_dft.sort(key=itemgetter(0))
    rows = [(place, (label.band_gap, _code(present_arrays(label)))) for place, (_, label) in enumerate(of_dft)]
    ids = np.array([identity for identity, _ in of_dft], np.int64)
    _write(session, shard, _ShardFacets(ids=ids, labels=rows).pack(LABEL_IDS))


def fill_facets(session: Session, *, at_most: int | None = None) -> int:
    """Make the facets of the shards that have none, or of some of them, from the other tables; the number made."""
    missing = session.scalars(shards_without_facets().limit(at_most)).all()
    for shard in missing:
        _write(session, shard.id, _from_tables(session, shard))
    return len(missing)


def drop_facets(session: Session, shards: Sequence[int] | None = None) -> None:
    """Forget the facets of some shards, or of all, whose rows are about to change; fill_facets makes them again."""
    session.execute(delete(Facet) if shards is None else delete(Facet).where(Facet.shard_id.in_(shards)))


def wrong_facets(session: Session) -> list[str]:
    """The paths of the shards whose facets differ from the other tables; those without any are not wrong."""
    unfilled = {shard.id for shard in session.scalars(shards_without_facets())}
    wrong = []
    for shard in session.scalars(select(ShardRow).order_by(ShardRow.id)).all():
        rows = session.execute(select(Facet.name, Facet.data).where(Facet.shard_id == shard.id))
        stored = {row.name: row.data for row in rows}
        if shard.id not in unfilled and stored != _from_tables(session, shard):
            wrong.append(shard.path)
    return wrong


def shards_without_facets() -> Select[ShardRow]:
    """The shards of which the facets know nothing."""
    known = select(Facet.shard_id).where(Facet.name.in_((STRUCTURE_IDS, LABEL_IDS)))
    return select(ShardRow).where(ShardRow.id.not_in(known)).order_by(ShardRow.id)


def _write(session: Session, shard: int, packed: Mapping[str, bytes]) -> None:
    rows = [{"name": name, "shard_id": shard, "data": data} for name, data in packed.items()]
    session.execute(insert(Facet.__table__), rows)  # type: ignore[arg-type]  # declared wider


def _teachers(session: Session) -> set[int]:
    return set(session.scalars(select(MethodRow.id).where(MethodRow.kind == "teacher")))


def _code(arrays: str | Iterable[str]) -> int:
    """The sum of LABEL_ARRAYS for the names of a label's arrays."""
    names = arrays.split() if isinstance(arrays, str) else arrays
    return sum(LABEL_ARRAYS.get(name, 0) for name in names)


def _from_tables(session: Session, shard: ShardRow) -> dict[str, bytes]:
    """What is packed for a shard, from the rows that it has."""
    if shard.kind != "structures":
        labels = _labels_of(session, shard)
        labelled = np.unique(np.array([identity for identity, _ in labels], np.int64))
        return _ShardFacets(ids=labelled, labels=_placed(labels, labelled)).pack(LABEL_IDS)
    row = StructureRow
    wanted = (row.id, row.nsites, row.nelements, row.pbc, row.space_group_it_number, row.source_id)
    inside = row.id.between(shard.first_structure_id, shard.last_structure_id) & (row.shard_id == shard.id)
    found = session.execute(select(*wanted).where(inside).order_by(row.id)).all()
    numbers, *columns = [list(column) for column in zip(*found, strict=True)] if found else [[] for _ in wanted]
    place = {identity: row_number for row_number, identity in enumerate(numbers)}
    elements: dict[int, list[int]] = defaultdict(list)
    element = StructureElement
    near = element.structure_id.between(shard.first_structure_id, shard.last_structure_id)
    query = select(element.atomic_number, element.structure_id).where(near)
    for number, identity in session.execute(query.order_by(element.structure_id)):
        if identity in place:
            elements[number].append(place[identity])
    every = np.array(numbers, np.int64)
    names = ("nsites", "nelements", "pbc", "space_group", "source")
    return _ShardFacets(
        ids=every,
        columns=dict(zip(names, columns, strict=True)),
        elements=elements,
        labels=_placed(_labels_of(session, shard), every),
    ).pack(STRUCTURE_IDS)


def _labels_of(session: Session, shard: ShardRow) -> list[tuple[int, LabelValues]]:
    """The DFT labels that are in a shard, by structure."""
    query = select(LabelRow.structure_id, LabelRow.band_gap, LabelRow.arrays)
    query = query.join(MethodRow, MethodRow.id == LabelRow.method_id).where(MethodRow.kind != "teacher")
    inside = LabelRow.structure_id.between(shard.first_structure_id, shard.last_structure_id)
    query = query.where(inside, LabelRow.shard_id == shard.id).order_by(LabelRow.structure_id, LabelRow.id)
    return [(identity, (gap, _code(arrays))) for identity, gap, arrays in session.execute(query)]


def _placed(labels: Sequence[tuple[int, LabelValues]], ids: Int64[np.ndarray, " rows"]) -> list[tuple[int, Any]]:
    """Labels by the place of their structure among ascending ids; a label of another structure is in no answer."""
    place: dict[Any, int] = {identity: number for number, identity in enumerate(ids.tolist())}
    return [(place[identity], values) for identity, values in labels if identity in place]
