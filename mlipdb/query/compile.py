"""What a filter asks, as SQLAlchemy over the catalog."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Boolean, Select, and_, false, func, not_, or_, select, true, type_coerce
from sqlalchemy.sql.expression import BooleanClauseList, Grouping

from mlipdb.catalog import StructureRow
from mlipdb.query.fields import NOTHING, Field
from mlipdb.query.predicate import Constant, Predicate
from mlipdb.query.relations import Sql
from mlipdb.query.resolve import Condition, Conjunction, Negation, Term, resolve

MANY = 20  # terms; for more, the best order of work takes longer to find than it saves


@dataclass(frozen=True)
class _Truth:
    """Where a condition is true and where it is false; a structure in neither has an unknown value in it."""

    true: Sql
    false: Sql


def select_structure_ids(
    text: str, *, subsets: Mapping[str, int], disagreements: Mapping[str, int] = NOTHING
) -> Select[int]:
    """The ids of the structures that a filter matches, ascending.

    subsets and disagreements map the names of the stored ones to their ids. Comparisons of an unknown value match
    nothing, whether NOT stands before them or not, as OPTIMADE says. Raises QueryError that shows the place in the
    filter.
    """
    return select_matching(resolve(text, subsets=subsets, disagreements=disagreements))


def select_matching(condition: Condition) -> Select[int]:
    """The ids of the structures that meet a condition, ascending."""
    truth = _truth(condition, plain=_terms(condition) > MANY)
    return select(StructureRow.id).where(truth.true).order_by(StructureRow.id)


def _terms(condition: Condition) -> int:
    if isinstance(condition, Term):
        return 1
    if isinstance(condition, Negation):
        return _terms(condition.condition)
    return sum(_terms(each) for each in condition.conditions)


def _truth(condition: Condition, *, plain: bool) -> _Truth:
    """With plain, every term is worked out for itself: PostgreSQL makes joins of terms and thinks about their order."""
    if isinstance(condition, Term):
        truth = _term(condition.field, condition.operator, condition.values)
        return _Truth(func.coalesce(truth.true, false()), func.coalesce(truth.false, false())) if plain else truth
    if isinstance(condition, Negation):
        inner = _truth(condition.condition, plain=plain)
        return _Truth(inner.false, inner.true)
    truths = [_truth(each, plain=plain) for each in condition.conditions]
    every, some = [each.true for each in truths], [each.false for each in truths]
    if isinstance(condition, Conjunction):
        return _Truth(and_(true(), *every), or_(not_(true()), *some))
    return _Truth(or_(*every), and_(*some))


def _term(field: Field, operator: str, values: Sequence[Constant]) -> _Truth:
    if operator.startswith("IS"):
        known = field.relation.known() if field.relation else true()
        return _Truth(known, not_(known)) if operator == "IS KNOWN" else _Truth(not_(known), known)
    if field.relation:
        predicate = Predicate(operator, values[0])
        return _Truth(_whole(field.relation.matches(predicate)), _whole(field.relation.fails(predicate)))
    condition = _list_condition(field, operator, values)
    return _Truth(condition, not_(condition))


def _whole(condition: Sql) -> Sql:
    """A condition in parentheses where it is several, which an AND around it would else take in: SQLite nests 1000."""
    if not isinstance(condition, BooleanClauseList):
        return condition
    return type_coerce(Grouping(condition), Boolean())  # of a Grouping alone SQLAlchemy takes the parentheses off


def _list_condition(field: Field, operator: str, values: Sequence[Constant]) -> Sql:
    if field.items is None:
        raise TypeError(f"field {field.name} has neither a relation nor items")
    if operator.startswith("LENGTH"):
        return field.items.length(Predicate(operator.removeprefix("LENGTH "), values[0]))
    items = [str(value) for value in values]
    if operator == "HAS ONLY":
        return field.items.has_only(items)
    if operator == "HAS ALL":
        return and_(*(field.items.has_any([item]) for item in dict.fromkeys(items)))
    return field.items.has_any(items)
