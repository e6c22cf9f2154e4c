"""The numbers of an overview, counted by the catalog's own SQL: one pass over a table for each question."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from mlipdb.catalog import (
    FindingRow,
    FingerprintTool,
    LabelRow,
    MethodRow,
    Source,
    StructureElement,
    StructureFingerprint,
    StructureRow,
    StructureTag,
    Tag,
)
from mlipdb.catalog.label_facets import FORCE_EDGES
from mlipdb.labels import ENERGY_KINDS
from mlipdb.query import frozen_subsets, select_structure_ids, stored_disagreements

ENERGY_WIDTH = 0.05  # eV/atom: the fine bins that a histogram is made from
TAG_VALUES = 12  # of each name, the commonest
FACTOR, PRIME = 1_103_515_245, 2_147_483_647  # of the hash that spreads a sample
NEVER_BELOW = 1e-9  # so that a value on an edge is in the bin above it in every database


@dataclass(frozen=True)
class Scope:
    """The structures that a filter matches, as a condition on any column of structure ids."""

    filter: str
    ids: Select[int] | None

    def holds(self, column: InstrumentedAttribute[int]) -> ColumnElement[bool]:
        """True for the structures of the filter; no condition at all where that is everything."""
        return true() if self.ids is None else column.in_(self.ids)


def scope_of(session: Session, text: str) -> Scope:
    """The scope of a filter; QueryError where it makes no sense."""
    named = {"subsets": frozen_subsets(session), "disagreements": stored_disagreements(session)}
    ids = select_structure_ids(text, **named)
    everything = ids.compare(select_structure_ids("all", subsets={}))
    return Scope(text, None if everything else ids.order_by(None))


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What is counted of the structures of a scope and of their labels, by SQL here and from facets in packed.py.

    sources, sizes, nelements, pbc and space_groups (None: without one) are structures by value; elements are atomic
    number, structures and atoms; the others are by method, as the functions say that count them; sample is
    spread_sample of this scope.
    """

    sources: Counter[int]
    sizes: Counter[int]
    nelements: Counter[int]
    pbc: Counter[int]
    space_groups: Mapping[int | None, int]
    elements: list[tuple[int, int, int]]
    coverage: list["Coverage"]
    labelled: int
    hessian_rows: Mapping[int, tuple[int, int]]
    energies: Mapping[int, "Energies"]
    largest_forces: Mapping[int, Mapping[int, int]]
    sample: Callable[..., list[int]]


def numbers(session: Session, scope: Scope) -> Numbers:
    """The numbers of the structures of a scope."""
    row = StructureRow
    keys = (row.source_id, row.nsites, row.nelements, row.pbc)
    found = session.execute(select(*keys, func.count()).where(scope.holds(row.id)).group_by(*keys)).all()
    shapes: list[Counter[int]] = [Counter() for _ in keys]
    for *values, structures in found:
        for counter, value in zip(shapes, values, strict=True):
            counter[value] += structures
    covered = coverage(session, scope)
    kinds = energy_kinds(covered)
    of_kind = {kind: energies(session, scope, kind) for kind in sorted(set(kinds.values()) - {""})}
    return Numbers(
        **dict(zip(("sources", "sizes", "nelements", "pbc"), shapes, strict=True)),
        space_groups=space_groups(session, scope),
        elements=elements(session, scope),
        coverage=covered,
        labelled=labelled(session, scope),
        hessian_rows=hessian_rows(session, scope),
        energies={method: of_kind[kind][method] for method, kind in kinds.items() if kind},
        largest_forces=largest_forces(session, scope),
        sample=partial(spread_sample, session, scope),
    )


def distinct(session: Session, scope: Scope, column: InstrumentedAttribute[Any]) -> int:
    """How many different values a column of structures has; in the order of its index, so without a sort."""
    values = select(column).where(scope.holds(StructureRow.id)).group_by(column).subquery()
    return session.scalar(select(func.count()).select_from(values)) or 0


def elements(session: Session, scope: Scope) -> list[tuple[int, int, int]]:
    """Atomic number, structures and atoms of each element."""
    row = StructureElement
    counted = select(row.atomic_number, func.count(), func.sum(row.count)).where(scope.holds(row.structure_id))
    found = session.execute(counted.group_by(row.atomic_number).order_by(row.atomic_number))
    return [(number, structures, int(atoms)) for number, structures, atoms in found]


def space_groups(session: Session, scope: Scope) -> dict[int | None, int]:
    """Structures by space-group number; None stands for those without one."""
    number = StructureRow.space_group_it_number
    found = session.execute(select(number, func.count()).where(scope.holds(StructureRow.id)).group_by(number))
    return {row[0]: row[1] for row in found}


@dataclass(frozen=True)
class Coverage:
    """Labels of one method with one status and one set of arrays: how many, and how many have each scalar."""

    method_id: int
    status: str
    arrays: tuple[str, ...]
    count: int
    scalars: Mapping[str, int]


SCALARS = (*ENERGY_KINDS, "band_gap")


def energy_kinds(covered: list[Coverage]) -> dict[int, str]:
    """The first kind of energy that each method gave; nothing where it gave none."""
    found = dict.fromkeys((part.method_id for part in covered), "")
    for kind in reversed(ENERGY_KINDS):
        found |= {part.method_id: kind for part in covered if part.scalars[kind]}
    return found


def coverage(session: Session, scope: Scope) -> list[Coverage]:
    """What the labels of each method have."""
    keys = (LabelRow.method_id, LabelRow.status, LabelRow.arrays)
    known = [func.count(getattr(LabelRow, name)) for name in SCALARS]
    counted = select(*keys, func.count(), *known).where(LabelRow.part == 0, scope.holds(LabelRow.structure_id))
    return [
        Coverage(row[0], row[1], tuple(row[2].split()), row[3], dict(zip(SCALARS, row[4:], strict=True)))
        for row in session.execute(counted.group_by(*keys))
    ]


def labelled(session: Session, scope: Scope) -> int:
    """How many structures have a label of any method."""
    done = select(LabelRow.structure_id).where(LabelRow.status == "done", scope.holds(LabelRow.structure_id))
    return session.scalar(select(func.count()).select_from(done.group_by(LabelRow.structure_id).subquery())) or 0


def hessian_rows(session: Session, scope: Scope) -> dict[int, tuple[int, int]]:
    """Structures with Hessian rows and the number of rows, by method."""
    structures = func.count(LabelRow.structure_id.distinct())
    counted = select(LabelRow.method_id, structures, func.sum(LabelRow.hessian_rows))
    found = session.execute(
        counted.where(LabelRow.hessian_rows > 0, scope.holds(LabelRow.structure_id)).group_by(LabelRow.method_id)
    )
    return {method: (count, int(rows)) for method, count, rows in found}


@dataclass(frozen=True)
class Energies:
    """Energies per atom of one method in eV/atom: moments, extremes and fine bins of ENERGY_WIDTH."""

    mean: float
    deviation: float
    lowest: float
    highest: float
    fine: Mapping[int, int]


def energies(session: Session, scope: Scope, kind: str) -> dict[int, Energies]:
    """Energies per atom of one kind, by method."""
    value = getattr(LabelRow, kind) / StructureRow.nsites
    number = func.round(value / ENERGY_WIDTH - (0.5 - NEVER_BELOW)).label("number")
    sums = (func.count(), func.sum(value), func.sum(value * value), func.min(value), func.max(value))
    counted = select(LabelRow.method_id, number, *sums).join(StructureRow, StructureRow.id == LabelRow.structure_id)
    wanted = and_(LabelRow.part == 0, getattr(LabelRow, kind).is_not(None), scope.holds(LabelRow.structure_id))
    rows: dict[int, list[Any]] = {}
    for method, *values in session.execute(counted.where(wanted).group_by(LabelRow.method_id, "number")):
        rows.setdefault(method, []).append(values)
    return {method: _energies(values) for method, values in rows.items()}


def _energies(rows: list[Any]) -> Energies:
    count, total = sum(row[1] for row in rows), sum(row[2] for row in rows)
    mean = total / count
    spread = max(sum(row[3] for row in rows) / count - mean * mean, 0.0)
    fine = {int(row[0]): row[1] for row in rows}
    return Energies(mean, spread**0.5, min(row[4] for row in rows), max(row[5] for row in rows), fine)


def largest_forces(session: Session, scope: Scope) -> dict[int, dict[int, int]]:
    """Labels by method and by the place of their largest force among FORCE_EDGES."""
    force = LabelRow.max_force
    places = ((force < edge, number) for number, edge in enumerate(FORCE_EDGES))
    place = case(*places, else_=len(FORCE_EDGES)).label("place")
    known = and_(force.is_not(None), LabelRow.part == 0, scope.holds(LabelRow.structure_id))
    counted = select(LabelRow.method_id, place, func.count()).where(known).group_by(LabelRow.method_id, "place")
    found: dict[int, dict[int, int]] = {}
    for method, number, count in session.execute(counted):
        found.setdefault(method, {})[number] = count
    return found


def methods(session: Session) -> list[MethodRow]:
    """Every method, by id."""
    return list(session.scalars(select(MethodRow).order_by(MethodRow.id)))


def sources(session: Session) -> list[Source]:
    """Every source, by id."""
    return list(session.scalars(select(Source).order_by(Source.id)))


def findings(session: Session, source_ids: set[int]) -> list[tuple[str, FindingRow]]:
    """What the checks found in sources, with the source's name."""
    found = select(Source.name, FindingRow).join(Source, Source.id == FindingRow.source_id)
    rows = session.execute(found.order_by(Source.id, FindingRow.check_name)).all()
    return [(name, row) for name, row in rows if row.source_id in source_ids]


def tags(session: Session, scope: Scope) -> dict[str, dict[str, int]]:
    """The commonest values of each name of tags, with how many structures have each."""
    if session.scalar(select(Tag.id).limit(1)) is None:
        return {}
    count = func.count().label("structures")
    of_tag = select(StructureTag.tag_id, count).where(scope.holds(StructureTag.structure_id))
    per_tag = of_tag.group_by(StructureTag.tag_id).subquery()
    rows = session.execute(
        select(Tag.name, Tag.value, per_tag.c.structures)
        .join(per_tag, per_tag.c.tag_id == Tag.id)
        .order_by(Tag.name, per_tag.c.structures.desc(), Tag.value)
    )
    found: dict[str, dict[str, int]] = {}
    for name, value, structures in rows:
        values = found.setdefault(name, {})
        if len(values) < TAG_VALUES:
            values[value] = structures
    return found


def fingerprints(session: Session, scope: Scope) -> dict[str, dict[str, int]]:
    """How many structures have a fingerprint, and how many fingerprints there are, by tool and version."""
    if session.scalar(select(FingerprintTool.id).limit(1)) is None:
        return {}
    row = StructureFingerprint
    value = select(row.tool_id, row.value, func.count().label("n")).where(scope.holds(row.structure_id))
    per_value = value.group_by(row.tool_id, row.value).subquery()
    counted = select(FingerprintTool.tool, FingerprintTool.version, func.sum(per_value.c.n), func.count())
    found = session.execute(
        counted.join(per_value, per_value.c.tool_id == FingerprintTool.id).group_by(FingerprintTool.id)
    )
    return {f"{tool} {version}": {"structures": int(n), "distinct": d} for tool, version, n, d in found}


def spread_sample(session: Session, scope: Scope, method: int, *, count: int, seed: int, array: str) -> list[int]:
    """So many structures, or all where there are fewer, that have an array of a method: even over the ids."""
    spread = spread_of(LabelRow.structure_id, seed=seed)
    wanted = and_(LabelRow.method_id == method, LabelRow.part == 0, scope.holds(LabelRow.structure_id))
    has = LabelRow.arrays.contains(array, autoescape=True)
    chosen = select(LabelRow.structure_id).where(wanted, has).order_by(spread, LabelRow.structure_id).limit(count)
    return sorted(session.scalars(chosen))


def spread_of(column: InstrumentedAttribute[int], *, seed: int) -> ColumnElement[int]:
    """A multiplicative hash of an id: its order spreads a sample evenly over the ids, and another seed turns it."""
    return (column * literal(FACTOR) + literal(shift_of(seed))) % literal(PRIME)


def shift_of(seed: int) -> int:
    """How far a seed turns the hash."""
    return seed % 10_007 * 97_861
