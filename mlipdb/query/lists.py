"""Fields that are lists: the elements, methods, teachers, subsets and tags of a structure. A list is always known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol, runtime_checkable

from sqlalchemy import func, not_, or_, select, true, tuple_

from mlipdb.catalog import LabelRow, MethodRow, StructureElement, StructureRow, StructureTag, SubsetMember, Tag
from mlipdb.query.predicate import Predicate
from mlipdb.query.relations import Ids, Sql
from mlipdb.structures import ATOMIC_NUMBERS

MAX_SYSTEM = 6


@runtime_checkable
class ListRelation(Protocol):
    """The questions that HAS, HAS ONLY and LENGTH ask."""

    def has_any(self, items: Sequence[str]) -> Sql:
        """True where at least one of the items is in the list."""
        ...

    def has_only(self, items: Sequence[str]) -> Sql:
        """True where nothing but the items is in the list."""
        ...

    def length(self, predicate: Predicate) -> Sql:
        """True where the number of different items satisfies the predicate."""
        ...


@dataclass(frozen=True)
class Elements:
    """The chemical elements of a structure."""

    def has_any(self, items: Sequence[str]) -> Sql:
        """True where at least one of the items is in the list."""
        numbers = [ATOMIC_NUMBERS[item] for item in items]
        element = StructureElement.atomic_number
        wanted = element == numbers[0] if len(numbers) == 1 else element.in_(numbers)
        return StructureRow.id.in_(select(StructureElement.structure_id).where(wanted))

    def has_only(self, items: Sequence[str]) -> Sql:
        """True where nothing but the items is in the list; few items are few chemical systems, which are indexed."""
        if len(items) > MAX_SYSTEM:
            numbers = [ATOMIC_NUMBERS[item] for item in items]
            others = select(StructureElement.structure_id).where(StructureElement.atomic_number.not_in(numbers))
            return not_(StructureRow.id.in_(others))
        symbols = sorted(set(items))
        systems = ["-".join(part) for size in range(1, len(symbols) + 1) for part in combinations(symbols, size)]
        return StructureRow.chemical_system.in_(systems)

    def length(self, predicate: Predicate) -> Sql:
        """True where the number of different items satisfies the predicate."""
        return predicate.sql(StructureRow.nelements.expression)


@dataclass(frozen=True)
class Methods:
    """The names of the methods that labelled a structure, of one kind or of all."""

    kind: str | None = None

    def has_any(self, items: Sequence[str]) -> Sql:
        """True where at least one of the items is in the list."""
        return StructureRow.id.in_(self._labelled(MethodRow.name.in_(items)))

    def has_only(self, items: Sequence[str]) -> Sql:
        """True where nothing but the items is in the list."""
        return not_(StructureRow.id.in_(self._labelled(MethodRow.name.not_in(items))))

    def length(self, predicate: Predicate) -> Sql:
        """True where the number of different items satisfies the predicate."""
        names = select(func.count(MethodRow.name.distinct())).join(LabelRow, LabelRow.method_id == MethodRow.id)
        mine = names.where(LabelRow.structure_id == StructureRow.id, LabelRow.status == "done", self._of_kind)
        return predicate.sql(mine.correlate(StructureRow).scalar_subquery())

    def _labelled(self, condition: Sql) -> Ids:
        methods = select(MethodRow.id).where(condition, self._of_kind)
        return select(LabelRow.structure_id).where(LabelRow.method_id.in_(methods), LabelRow.status == "done")

    @property
    def _of_kind(self) -> Sql:
        return true() if self.kind is None else MethodRow.kind == self.kind


@dataclass(frozen=True)
class Subsets:
    """The names of the frozen subsets that a structure is a member of."""

    ids: Mapping[str, int]

    def has_any(self, items: Sequence[str]) -> Sql:
        """True where at least one of the items is in the list."""
        return or_(*(StructureRow.id.in_(self._members([self.ids[item]])) for item in items))

    def has_only(self, items: Sequence[str]) -> Sql:
        """True where nothing but the items is in the list."""
        others = [number for name, number in self.ids.items() if name not in items]
        return not_(StructureRow.id.in_(self._members(others)))

    def length(self, predicate: Predicate) -> Sql:
        """True where the number of different items satisfies the predicate."""
        count = select(func.count()).where(SubsetMember.structure_id == StructureRow.id)
        return predicate.sql(count.correlate(StructureRow).scalar_subquery())

    def _members(self, subset_ids: Sequence[int]) -> Ids:
        return select(SubsetMember.structure_id).where(SubsetMember.subset_id.in_(subset_ids))


@dataclass(frozen=True)
class Tags:
    """The words that its source gave a structure, each written ``name=value``."""

    def has_any(self, items: Sequence[str]) -> Sql:
        """True where at least one of the items is in the list."""
        return StructureRow.id.in_(select(StructureTag.structure_id).where(StructureTag.tag_id.in_(self._ids(items))))

    def has_only(self, items: Sequence[str]) -> Sql:
        """True where nothing but the items is in the list."""
        others = select(StructureTag.structure_id).where(StructureTag.tag_id.not_in(self._ids(items)))
        return not_(StructureRow.id.in_(others))

    def length(self, predicate: Predicate) -> Sql:
        """True where the number of different items satisfies the predicate."""
        count = select(func.count()).where(StructureTag.structure_id == StructureRow.id)
        return predicate.sql(count.correlate(StructureRow).scalar_subquery())

    def _ids(self, items: Sequence[str]) -> Ids:
        pairs = [(name, value) for name, _, value in (item.partition("=") for item in items)]
        return select(Tag.id).where(tuple_(Tag.name, Tag.value).in_(pairs))
