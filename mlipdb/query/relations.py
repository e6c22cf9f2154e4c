"""Where a field's values are in the catalog: which structures have a value that satisfies a condition."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from sqlalchemy import ColumnElement, Select, false, func, literal, not_, select, true
from sqlalchemy.orm import InstrumentedAttribute, aliased

from mlipdb.catalog import LabelRow, MethodRow, StructureDisagreement, StructureRow
from mlipdb.query.predicate import Predicate

Sql = ColumnElement[bool]
Ids = Select[int]

# Subqueries are IN, not EXISTS, so that SQLite may start from the smallest index; see tests/query/test_plans.py.


@runtime_checkable
class Relation(Protocol):
    """The three questions that a comparison asks; together they make OPTIMADE's unknown values come out right."""

    def matches(self, predicate: Predicate) -> Sql:
        """True where some value satisfies the predicate."""
        ...

    def fails(self, predicate: Predicate) -> Sql:
        """True where a value is known and none satisfies the predicate."""
        ...

    def known(self) -> Sql:
        """True where a value is known."""
        ...


@dataclass(frozen=True)
class Scalar:
    """A column of the structure, or an expression of its columns."""

    column: ColumnElement[Any] | InstrumentedAttribute[Any]
    nullable: bool = False

    def matches(self, predicate: Predicate) -> Sql:
        """True where some value satisfies the predicate."""
        return predicate.sql(self._expression)

    def fails(self, predicate: Predicate) -> Sql:
        """True where a value is known and none satisfies the predicate."""
        return not_(predicate.sql(self._expression))

    def known(self) -> Sql:
        """True where a value is known."""
        return self._expression.is_not(None) if self.nullable else true()

    @property
    def _expression(self) -> ColumnElement[Any]:
        return self.column.expression if isinstance(self.column, InstrumentedAttribute) else self.column


@dataclass(frozen=True)
class Coded:
    """A value that follows from a small code in a column, so conditions on it become lists of codes."""

    column: InstrumentedAttribute[Any]
    values: Mapping[int, str | int]

    def matches(self, predicate: Predicate) -> Sql:
        """True where some value satisfies the predicate."""
        return self.column.in_([code for code, value in self.values.items() if predicate.holds(value)])

    def fails(self, predicate: Predicate) -> Sql:
        """True where a value is known and none satisfies the predicate."""
        return self.column.in_([code for code, value in self.values.items() if not predicate.holds(value)])

    def known(self) -> Sql:
        """True where a value is known."""
        return self.column.is_not(None)


@dataclass(frozen=True)
class Named:
    """The name of a row that the structure refers to, such as its source."""

    reference: InstrumentedAttribute[int]
    key: InstrumentedAttribute[int]
    name: InstrumentedAttribute[str]

    def matches(self, predicate: Predicate) -> Sql:
        """True where some value satisfies the predicate."""
        return self.reference.in_(select(self.key).where(predicate.sql(self.name.expression)))

    def fails(self, predicate: Predicate) -> Sql:
        """True where a value is known and none satisfies the predicate."""
        return not_(self.matches(predicate))

    def known(self) -> Sql:
        """True where a value is known."""
        return true()


@dataclass(frozen=True)
class OfLabel:
    """A quantity that DFT labels carry, a structure having as many values as it has such labels that know it."""

    column: InstrumentedAttribute[Any]
    per_atom: bool = False

    def matches(self, predicate: Predicate) -> Sql:
        """True where some value satisfies the predicate."""
        return StructureRow.id.in_(self._structures(predicate))

    def fails(self, predicate: Predicate) -> Sql:
        """True where a value is known and none satisfies the predicate."""
        return StructureRow.id.in_(self._structures(predicate, negated=True)) & not_(self.matches(predicate))

    def known(self) -> Sql:
        """True where a value is known."""
        return StructureRow.id.in_(dft_labels().where(self.column.is_not(None)))

    def _structures(self, predicate: Predicate, *, negated: bool = False) -> Ids:
        """Those with a label whose known value satisfies the predicate, or does not when negated."""
        labels, value = dft_labels(), self.column.expression
        if self.per_atom:
            atoms = aliased(StructureRow)
            labels, value = labels.join(atoms, atoms.id == LabelRow.structure_id), value / atoms.nsites
        condition = predicate.sql(value)
        return labels.where(not_(condition) if negated else condition)


@dataclass(frozen=True)
class HasArray:
    """Whether labels hold an array; always known."""

    array: str
    dft_only: bool = True

    def matches(self, predicate: Predicate) -> Sql:
        """True where some value satisfies the predicate."""
        wanted = (predicate.operator == "=") == bool(predicate.constant)
        labels = dft_labels() if self.dft_only else select(LabelRow.structure_id)
        there = StructureRow.id.in_(labels.where(LabelRow.arrays.contains(self.array, autoescape=True)))
        return there if wanted else not_(there)

    def fails(self, predicate: Predicate) -> Sql:
        """True where a value is known and none satisfies the predicate."""
        return not_(self.matches(predicate))

    def known(self) -> Sql:
        """True where a value is known."""
        return true()


@dataclass(frozen=True)
class HessianRows:
    """The largest number of Hessian rows that one method gave; 0 where none did, so always known."""

    def matches(self, predicate: Predicate) -> Sql:
        """True where some value satisfies the predicate."""
        if predicate.holds(0):
            return not_(StructureRow.id.in_(self._largest(predicate, negated=True)))
        return StructureRow.id.in_(self._largest(predicate, negated=False))

    def fails(self, predicate: Predicate) -> Sql:
        """True where a value is known and none satisfies the predicate."""
        return not_(self.matches(predicate))

    def known(self) -> Sql:
        """True where a value is known."""
        return true()

    def _largest(self, predicate: Predicate, *, negated: bool) -> Ids:
        rows = func.sum(LabelRow.hessian_rows).label("rows")
        keys = (LabelRow.structure_id, LabelRow.method_id)
        each = select(LabelRow.structure_id, rows).where(LabelRow.hessian_rows > 0).group_by(*keys).subquery()
        condition = predicate.sql(func.max(each.c.rows))
        return (
            select(each.c.structure_id).group_by(each.c.structure_id).having(not_(condition) if negated else condition)
        )


@dataclass(frozen=True)
class OfDisagreement:
    """A number of how far some methods are apart; without their id no structure has one."""

    disagreement: int | None
    column: InstrumentedAttribute[float | None]

    def matches(self, predicate: Predicate) -> Sql:
        """True where some value satisfies the predicate."""
        return self._where(predicate.sql(self.column.expression))

    def fails(self, predicate: Predicate) -> Sql:
        """True where a value is known and none satisfies the predicate."""
        return self._where(not_(predicate.sql(self.column.expression)))

    def known(self) -> Sql:
        """True where a value is known."""
        return self._where(self.column.is_not(None))

    def _where(self, condition: Sql) -> Sql:
        if self.disagreement is None:
            return false()
        numbers, mine = StructureDisagreement, StructureDisagreement.disagreement_id == self.disagreement
        return StructureRow.id.in_(select(numbers.structure_id).where(mine, condition))


def dft_labels() -> Ids:
    """The structures of the labels whose method is not a teacher; for further conditions.

    The sum with 0 keeps SQLite from reading every label of a method by the index on method_id.
    """
    dft = select(MethodRow.id).where(MethodRow.kind != "teacher")
    return select(LabelRow.structure_id).where((LabelRow.method_id + literal(0)).in_(dft))
