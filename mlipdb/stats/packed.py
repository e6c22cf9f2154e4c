"""The numbers of an overview from facets: read shard by shard, so that no row of the catalog is touched."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlipdb.catalog import Facet, LabelRow, ShardRow
from mlipdb.catalog.facets import LABEL_IDS, STRUCTURE_IDS, shards_without_facets
from mlipdb.catalog.label_facets import HAS_GAP, LABEL_ARRAYS
from mlipdb.catalog.packing import IdRange, UnknownPackingError, unpack_column, unpack_ids, unpack_set
from mlipdb.labels import ENERGY_KINDS
from mlipdb.query import structure_ids
from mlipdb.stats import counts
from mlipdb.stats.counts import ENERGY_WIDTH, NEVER_BELOW, Coverage, Energies, Numbers, Scope

STEP = 16  # shards that are read by one statement
COLUMNS = ("source", "nsites", "nelements", "pbc", "space_group")
LABELS = ("method_id", "part", "has", "hessian_rows", "force_place", *ENERGY_KINDS)
UNREAD = frozenset({"band_gap", "band_gap/steps", "arrays"})  # what filters alone need

Ids = Int64[np.ndarray, " _"]
Flags = Bool[np.ndarray, " _"]
Floats = Float64[np.ndarray, " _"]


def packed_numbers(session: Session, scope: Scope) -> Numbers | None:
    """The numbers of the structures of a scope; None where a shard has no facets, or some of a version to come."""
    if session.scalar(shards_without_facets().with_only_columns(1).limit(1)) is not None:
        return None
    wanted = None if scope.ids is None else structure_ids(session, scope.filter)
    try:
        return _Sums(wanted).read(session).numbers(session)
    except UnknownPackingError:
        return None


class _Sums:
    """Adds up shards; wanted are ids that ascend, None for all."""

    def __init__(self, wanted: Ids | None) -> None:
        self._wanted = wanted
        self._columns: dict[str, Counter[int | None]] = {name: Counter() for name in COLUMNS}
        self._elements: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self._ids: list[Ids] = []
        self._sizes: list[Ids] = []
        self._labels = _LabelSums()

    def read(self, session: Session) -> "_Sums":
        for facets in _shards(session, "structures"):
            self._add_structures(facets)
        self._labels.open(_joined(self._ids), _joined(self._sizes))
        for kind in ("structures", "labels"):
            for facets in _shards(session, kind, labels=True):
                self._add_labels(facets)
        return self

    def _chosen(self, ids: IdRange) -> Flags:
        chosen = np.zeros(ids.rows, dtype=bool)
        chosen[slice(None) if self._wanted is None else ids.places(self._wanted)] = True
        return chosen

    def _add_structures(self, facets: Mapping[str, bytes]) -> None:
        ids = unpack_ids(facets[STRUCTURE_IDS])
        chosen = self._chosen(ids)
        if not chosen.any():
            return
        for name in COLUMNS:
            column = unpack_column(facets[name])
            seen = np.bincount(column.codes[chosen], minlength=len(column.values) + 1).tolist()
            for value, count in zip([None, *column.values.tolist()], seen, strict=True):
                self._columns[name][value] += count
        self._ids.append(ids.all()[chosen])
        self._sizes.append(_values(facets["nsites"])[chosen])
        self._add_elements(facets, chosen)

    def _add_elements(self, facets: Mapping[str, bytes], chosen: Flags) -> None:
        if "atoms" not in facets:
            return
        atoms, start = _values(facets["atoms"]), 0
        for number in sorted(int(name[9:]) for name in facets if name.startswith("elements/")):
            bits = unpack_set(facets[f"elements/{number}"])
            inside = chosen[np.unpackbits(bits, count=len(chosen), bitorder="little").astype(bool)]
            of_element = atoms[start : start + len(inside)][inside]
            start += len(inside)
            self._elements[number][0] += len(of_element)
            self._elements[number][1] += int(of_element.sum())

    def _add_labels(self, facets: Mapping[str, bytes]) -> None:
        if "label/method_id" not in facets:
            return
        ids = unpack_ids(facets[STRUCTURE_IDS] if STRUCTURE_IDS in facets else facets[LABEL_IDS])
        places = unpack_column(facets["label/method_id"]).places
        every = np.arange(ids.rows) if places is None else places
        chosen = self._chosen(ids)[every]
        if chosen.any():
            self._labels.add(facets, ids.all()[every], chosen)

    def numbers(self, session: Session) -> Numbers:
        known = {name: _counted(counter) for name, counter in self._columns.items()}
        covered = self._labels.coverage() + self._failed(session)
        kinds = counts.energy_kinds(covered)
        return Numbers(
            sources=known["source"],
            sizes=known["nsites"],
            nelements=known["nelements"],
            pbc=known["pbc"],
            space_groups=_positive(self._columns["space_group"]),
            elements=[(number, n, atoms) for number, (n, atoms) in sorted(self._elements.items()) if n],
            coverage=covered,
            labelled=self._labels.labelled(),
            hessian_rows=self._labels.hessian_rows(),
            energies={method: self._labels.energies(method, kind) for method, kind in kinds.items() if kind},
            largest_forces=self._labels.largest_forces(),
            sample=self._labels.sample,
        )

    def _failed(self, session: Session) -> list[Coverage]:
        """The labels that could not be made: few, and in no shard."""
        failed: dict[int, list[int]] = defaultdict(list)
        query = select(LabelRow.method_id, LabelRow.structure_id)
        for method, identity in session.execute(query.where(LabelRow.shard_id.is_(None), LabelRow.part == 0)):
            failed[method].append(identity)
        found = []
        for method, ids in failed.items():
            count = len(ids) if self._wanted is None else int(np.isin(ids, self._wanted).sum())
            if count:
                found.append(Coverage(method, "failed", (), count, dict.fromkeys(counts.SCALARS, 0)))
        return found


class _LabelSums:
    """Adds up the labels of shards."""

    def __init__(self) -> None:
        self._forces: dict[int, Counter[int]] = defaultdict(Counter)
        self._coverage: dict[tuple[int, int], Counter[str]] = defaultdict(Counter)
        self._energies: dict[tuple[int, str], list[Floats]] = defaultdict(list)
        self._with_hessian: dict[int, tuple[list[Ids], list[int]]] = defaultdict(lambda: ([], []))
        self._entries: dict[int, list[tuple[Ids, Ids]]] = defaultdict(list)

    def open(self, ids: Ids, sizes: Ids) -> None:
        """Take the structures: their ids, which are sorted here, and numbers of atoms."""
        order = np.argsort(ids, kind="stable")
        self._ids, self._sizes = ids[order], sizes[order]
        self._labelled = np.zeros(len(ids), dtype=bool)

    def add(self, facets: Mapping[str, bytes], ids: Ids, chosen: Flags) -> None:
        """Take the labels of a shard, of structures ids, those chosen."""
        columns = {name: _entries(facets, name, chosen) for name in LABELS}
        ids = ids[chosen]
        place = np.searchsorted(self._ids, ids)
        self._labelled[place] = True
        for method in np.unique(columns["method_id"]).astype(int).tolist():
            own = columns["method_id"] == method
            self._add(method, {name: values[own] for name, values in columns.items()}, ids[own], place[own])

    def _add(self, method: int, columns: Mapping[str, Floats], ids: Ids, place: Ids) -> None:
        rows = np.nan_to_num(columns["hessian_rows"])
        if rows.any():
            self._with_hessian[method][0].append(ids[rows > 0])
            self._with_hessian[method][1].append(int(rows.sum()))
        first = np.nan_to_num(columns["part"]) == 0
        has = np.nan_to_num(columns["has"]).astype(np.int64)[first]
        kept = {name: columns[name][first] for name in (*ENERGY_KINDS, "force_place")}
        for code in np.unique(has).tolist():
            same = has == code
            counter = self._coverage[method, code & ~HAS_GAP]
            counter["labels"] += int(same.sum())
            counter["band_gap"] += int(same.sum()) if code & HAS_GAP else 0
            for name, values in kept.items():
                counter[name] += int((~np.isnan(values[same])).sum())
        for kind in ENERGY_KINDS:
            told = ~np.isnan(kept[kind])
            if told.any():
                self._energies[method, kind].append(kept[kind][told] / self._sizes[place[first]][told])
        forces = kept["force_place"]
        seen = np.bincount(forces[~np.isnan(forces)].astype(np.int64))
        self._forces[method].update(dict(enumerate(seen.tolist())))
        self._entries[method].append((ids[first], has))

    def coverage(self) -> list[Coverage]:
        """What the labels of each method have."""
        found = []
        for (method, code), counter in sorted(self._coverage.items()):
            arrays = tuple(name for name, bit in LABEL_ARRAYS.items() if code & bit)
            scalars = {name: counter[name] for name in (*ENERGY_KINDS, "band_gap")}
            found.append(Coverage(method, "done", arrays, counter["labels"], scalars))
        return found

    def largest_forces(self) -> dict[int, dict[int, int]]:
        return {method: _positive(places) for method, places in self._forces.items() if places}

    def labelled(self) -> int:
        return int(self._labelled.sum())

    def hessian_rows(self) -> dict[int, tuple[int, int]]:
        return {m: (len(np.unique(_joined(ids))), sum(rows)) for m, (ids, rows) in self._with_hessian.items()}

    def energies(self, method: int, kind: str) -> Energies:
        values = np.concatenate(self._energies[method, kind])
        shifted = values / ENERGY_WIDTH - (0.5 - NEVER_BELOW)
        places, seen = np.unique(np.trunc(shifted + np.copysign(0.5, shifted)).astype(np.int64), return_counts=True)
        fine = dict(zip(places.tolist(), seen.tolist(), strict=True))
        return Energies(float(values.mean()), float(values.std()), float(values.min()), float(values.max()), fine)

    def sample(self, method: int, *, count: int, seed: int, array: str) -> list[int]:
        """As counts.spread_sample."""
        bit = LABEL_ARRAYS[array]
        ids = _joined([found[(has & bit) > 0] for found, has in self._entries[method]])
        spread = (ids * counts.FACTOR + counts.shift_of(seed)) % counts.PRIME
        if len(ids) > count:
            near = spread <= np.partition(spread, count)[count]
            ids, spread = ids[near], spread[near]
        return sorted(ids[np.lexsort((ids, spread))][:count].tolist())


def _shards(session: Session, kind: str, *, labels: bool = False) -> Iterator[dict[str, bytes]]:
    """The facets of each shard of a kind that structures need, or those that labels need."""
    shards = session.scalars(
        select(ShardRow.id).where(ShardRow.kind == kind).order_by(ShardRow.first_structure_id)
    ).all()
    of_labels = [f"label/{name}" for name in LABELS]
    everything = set(session.scalars(select(Facet.name).distinct())) - UNREAD
    names = [STRUCTURE_IDS, LABEL_IDS, *of_labels] if labels else sorted(everything.difference(of_labels))
    for start in range(0, len(shards), STEP):
        some = shards[start : start + STEP]
        found: dict[int, dict[str, bytes]] = {shard: {} for shard in some}
        packed = select(Facet.shard_id, Facet.name, Facet.data)
        for shard, name, data in session.execute(packed.where(Facet.shard_id.in_(some), Facet.name.in_(names))):
            found[shard][name] = data
        yield from found.values()


def _values(data: bytes) -> Ids:
    """The whole numbers of a column all of whose entries are known."""
    column = unpack_column(data)
    return np.asarray(column.values[column.codes.astype(np.int64) - 1], np.int64)


def _entries(facets: Mapping[str, bytes], name: str, chosen: Flags) -> Floats:
    """The values of a label's column, NaN where they are unknown or the column is left out."""
    data = facets.get(f"label/{name}")
    if data is None:
        return np.full(int(chosen.sum()), np.nan)
    column = unpack_column(data)
    values = np.concatenate([np.full(1, np.nan), column.values.astype(np.float64)])
    return np.asarray(values[column.codes[chosen]])


def _joined(parts: list[Ids]) -> Ids:
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _positive(counter: Mapping[Any, int]) -> dict[Any, int]:
    return {value: count for value, count in counter.items() if count}


def _counted(counter: Mapping[int | None, int]) -> Counter[int]:
    """The counts of known values."""
    return Counter({value: count for value, count in counter.items() if count and value is not None})
