"""The structures that two methods labelled, or some of them, with what both gave."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int32, Int64
from sqlalchemy import Select, and_, select

from mlipdb.catalog import LabelRow, StructureRow
from mlipdb.database import Database
from mlipdb.errors import NotFoundError
from mlipdb.labels import ENERGY_KINDS, Label
from mlipdb.methods import find_method
from mlipdb.structures import Structure

AGAINST = " against "  # between two kinds of energy
SOURCE = "source"  # stands for the labels that came with the structures

Ids = Int64[np.ndarray, " _"]
Pairs = Float64[np.ndarray, "_ 2"]


@dataclass(frozen=True)
class Side:
    """One of the two: a method, or None for the labels that came with the structures."""

    method_id: int | None
    name: str


@dataclass(frozen=True, eq=False, kw_only=True)
class RowSet:
    """Hessian rows of one structure (eV/Å²), by number, and the largest force of the same label (eV/Å)."""

    numbers: Int32[np.ndarray, " rows"]
    rows: Float64[np.ndarray, "rows atoms 3"]
    max_force: float | None


@dataclass(eq=False, kw_only=True)
class SideSample:
    """What is checked of one side alone: its Hessian rows, and energies beside sums of atomic energies (eV/atom)."""

    row_sets: list[RowSet] = field(default_factory=list)
    sums: list[tuple[float, float]] = field(default_factory=list)
    sum_compositions: list[dict[int, int]] = field(default_factory=list)
    include_e0: bool = True


@dataclass(eq=False, kw_only=True)
class Sample:
    """Structures that both labelled. Lists have an entry for each structure that has the quantity on both sides.

    energies by kind are (composition, first, second) in eV, under two kinds' names where none is common; forces and
    stresses are pairs of arrays in eV/Å and eV/Å³ with the structure's volume in Å³ for stresses; rows are pairs of
    equal Hessian rows.
    """

    ids: list[int] = field(default_factory=list)
    energies: dict[str, list[tuple[dict[int, int], float, float]]] = field(default_factory=dict)
    forces: list[Pairs] = field(default_factory=list)
    stresses: list[Pairs] = field(default_factory=list)
    volumes: list[float] = field(default_factory=list)
    rows: list[Pairs] = field(default_factory=list)
    alone: tuple[SideSample, SideSample] = field(default_factory=lambda: (SideSample(), SideSample()))

    def add(self, identity: int, structure: Structure, first: Label, second: Label) -> None:
        """Take what both gave of a structure."""
        self.ids.append(identity)
        for kind, left, right in _energies(first, second):
            self.energies.setdefault(kind, []).append((structure.composition, left, right))
        if first.forces is not None and second.forces is not None:
            self.forces.append(_columns(first.forces, second.forces))
        if first.stress is not None and second.stress is not None and structure.volume is not None:
            self.stresses.append(_columns(first.stress, second.stress))
            self.volumes.append(structure.volume)
        self._add_rows(first, second)
        for side, label in zip(self.alone, (first, second), strict=True):
            _add_alone(side, structure, label)

    def _add_rows(self, first: Label, second: Label) -> None:
        sets = [_row_set(label) for label in (first, second)]
        if sets[0] is None or sets[1] is None:
            return
        _, left, right = np.intersect1d(sets[0].numbers, sets[1].numbers, return_indices=True)
        if len(left):
            self.rows.append(_columns(sets[0].rows[left], sets[1].rows[right]))


def find_side(db: Database, name: str) -> Side:
    """The side of a name or number of a method, or of ``source``."""
    if name == SOURCE:
        return Side(None, SOURCE)
    number = find_method(db, name)
    return Side(number, f"{db.method(number).name} ({number})")


def common_ids(db: Database, ids: Ids, *, sides: tuple[Side, Side]) -> Ids:
    """Those of the ids (ascending) that both sides labelled. Raises NotFoundError where there are none."""
    found = ids
    with db.session() as session:
        for side in sides:
            labelled = np.array(sorted(session.scalars(_labelled(side))), np.int64)
            if side.method_id is not None or len(labelled):  # labels without a method have no rows to find them by
                found = np.intersect1d(found, labelled, assume_unique=True)
    if not len(found):
        raise NotFoundError(
            f"none of {len(ids)} structures has labels of both {sides[0].name} and {sides[1].name}; `mlipdb labels "
            "list` says what each labelled"
        )
    return found


def _labelled(side: Side) -> Select[int]:
    """The structures that a side labelled."""
    done = and_(LabelRow.status == "done", LabelRow.part == 0)
    if side.method_id is not None:
        return select(LabelRow.structure_id).where(done, LabelRow.method_id == side.method_id)
    same = and_(StructureRow.id == LabelRow.structure_id, StructureRow.shard_id == LabelRow.shard_id)
    return select(LabelRow.structure_id).join(StructureRow, same).where(done)


def source_methods(db: Database, ids: Ids) -> list[str]:
    """Names of the methods that made the labels that came with structures."""
    names = set()
    methods = db.methods()
    with db.session() as session:
        same = and_(StructureRow.id == LabelRow.structure_id, StructureRow.shard_id == LabelRow.shard_id)
        for start in range(0, len(ids), 500):
            chosen = LabelRow.structure_id.in_(ids[start : start + 500].tolist())
            found = session.scalars(select(LabelRow.method_id).join(StructureRow, same).where(chosen).distinct())
            names |= {f"{methods[number].name} ({number})" for number in found}
    return sorted(names)


def draw(ids: Ids, *, count: int, seed: int) -> Ids:
    """So many of the ids, all where there are no more, ascending; seed says which."""
    if len(ids) <= count:
        return ids
    return np.sort(np.random.default_rng(seed).choice(ids, count, replace=False))


def read_sample(db: Database, ids: Ids, *, sides: tuple[Side, Side]) -> Sample:
    """Read the labels of both sides of some structures."""
    sample = Sample()
    first, second = (db.read(ids, method_id=side.method_id) for side in sides)
    for identity, (structure, left), (_, right) in zip(ids.tolist(), first, second, strict=True):
        if left is not None and right is not None:
            sample.add(identity, structure, left, right)
    return sample


def _energies(first: Label, second: Label) -> list[tuple[str, float, float]]:
    """Energies by the kinds that both have; where there are none, those that they have, under the names of both."""
    pairs = [(kind, getattr(first, kind), getattr(second, kind)) for kind in ENERGY_KINDS]
    both = [pair for pair in pairs if None not in pair]
    left, right = first.first_energy, second.first_energy
    if both or left is None or right is None:
        return both
    return [(f"{left[0]}{AGAINST}{right[0]}", left[1], right[1])]


def _columns(first: Float64[np.ndarray, "..."], second: Float64[np.ndarray, "..."]) -> Pairs:
    return np.column_stack([first.ravel(), second.ravel()])


def _row_set(label: Label) -> RowSet | None:
    if label.hessian_rows is None or label.hessian_row_numbers is None:
        return None
    return RowSet(numbers=label.hessian_row_numbers, rows=label.hessian_rows, max_force=label.max_force)


def _add_alone(side: SideSample, structure: Structure, label: Label) -> None:
    if (rows := _row_set(label)) is not None:
        side.row_sets.append(rows)
    if label.atomic_energies is not None and (energy := label.first_energy) is not None:
        side.sums.append((energy[1], float(label.atomic_energies.sum())))
        side.sum_compositions.append(structure.composition)
        side.include_e0 = bool(label.atomic_energies_include_e0)
