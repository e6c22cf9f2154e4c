"""A filter's tree as SQLAlchemy over the catalog."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Select, and_, not_, or_, select, true

from mlipdb.catalog import StructureRow
from mlipdb.errors import QueryError, did_you_mean
from mlipdb.query.caret import query_error
from mlipdb.query.fields import NOT_STORED, Field, fields
from mlipdb.query.parse import And, Comparison, Node, Not, Value, parse
from mlipdb.query.predicate import COMPARISONS, SUBSTRINGS, Constant, Predicate
from mlipdb.query.relations import Sql
from mlipdb.query.words import ALIASES

_ALLOWED = {
    "integer": (*COMPARISONS, "IS KNOWN", "IS UNKNOWN"),
    "float": (*COMPARISONS, "IS KNOWN", "IS UNKNOWN"),
    "string": ("=", "!=", *SUBSTRINGS, "IS KNOWN", "IS UNKNOWN"),
    "boolean": ("=", "!=", "IS KNOWN", "IS UNKNOWN"),
    "list": (
        *("HAS", "HAS ALL", "HAS ANY", "HAS ONLY", "IS KNOWN", "IS UNKNOWN"),
        *(f"LENGTH {comparison}" for comparison in COMPARISONS),
    ),
}
_PYTHON_TYPES = {"integer": "a number", "float": "a number", "string": "a string in double quotes", "list": "a string"}


@dataclass(frozen=True)
class _Truth:
    """Where a term is true and where it is false; a structure in neither has an unknown value in it."""

    true: Sql
    false: Sql


def select_structure_ids(text: str, *, subsets: Mapping[str, int]) -> Select[int]:
    """The ids of the structures that a filter matches, ascending.

    subsets maps the names of frozen subsets to their ids. Comparisons of an unknown value match nothing, whether NOT
    stands before them or not, as OPTIMADE says. Raises QueryError that shows the place in the filter.
    """
    known = fields(subsets)
    flags = [name for name, field in known.items() if field.type == "boolean"]
    tree = parse(text, subsets=subsets, fields=list(known), flags=flags)
    condition = _Compiler(text, known).term(tree).true
    return select(StructureRow.id).where(condition).order_by(StructureRow.id)


class _Compiler:
    """Turns nodes into conditions; keeps the text for errors and the fields."""

    def __init__(self, text: str, known: Mapping[str, Field]) -> None:
        self.text, self.known = text, known

    def error(self, message: str, *, position: int) -> QueryError:
        return query_error(message, text=self.text, position=position)

    def term(self, node: Node) -> _Truth:
        if isinstance(node, Comparison):
            return self.comparison(node)
        if isinstance(node, Not):
            inner = self.term(node.term)
            return _Truth(inner.false, inner.true)
        terms = [self.term(child) for child in node.terms]
        every, some = [term.true for term in terms], [term.false for term in terms]
        if isinstance(node, And):
            return _Truth(and_(true(), *every), or_(not_(true()), *some))
        return _Truth(or_(*every), and_(*some))

    def comparison(self, comparison: Comparison) -> _Truth:
        field = self.field(comparison)
        if comparison.operator not in _ALLOWED[field.type]:
            raise self.error(_not_allowed(field, comparison.operator), position=comparison.property.position)
        values = [self.constant(field, comparison, value) for value in comparison.values]
        if comparison.operator.startswith("IS"):
            known = field.relation.known() if field.relation else true()
            return _Truth(known, not_(known)) if comparison.operator == "IS KNOWN" else _Truth(not_(known), known)
        if field.relation:
            predicate = Predicate(comparison.operator, values[0])
            return _Truth(field.relation.matches(predicate), field.relation.fails(predicate))
        condition = _list_condition(field, comparison.operator, values)
        return _Truth(condition, not_(condition))

    def field(self, comparison: Comparison) -> Field:
        name, position = comparison.property.name, comparison.property.position
        if name in self.known:
            return self.known[name]
        if name in NOT_STORED:
            raise self.error(f"{name} is an OPTIMADE field that mlipdb does not store", position=position)
        own = f"_mlipdb_{name}"
        hint = f" Did you mean {own!r}?" if own in self.known else did_you_mean(name, [*self.known, *ALIASES])
        raise self.error(f"{name!r} is no field.{hint}", position=position)

    def constant(self, field: Field, comparison: Comparison, value: Value) -> Constant:
        """The value in the type and spelling of the field."""
        expected = "integer" if comparison.operator.startswith("LENGTH") else field.type
        number = isinstance(value.value, int | float) and not isinstance(value.value, bool)
        fits = {"integer": number, "float": number, "boolean": isinstance(value.value, bool)}
        if not fits.get(expected, isinstance(value.value, str)):
            wanted = _PYTHON_TYPES.get(expected, "TRUE or FALSE")
            raise self.error(f"{field.name} is compared with {wanted}", position=value.position)
        if field.spelling is None or not isinstance(value.value, str) or comparison.operator in SUBSTRINGS:
            return value.value
        stored = field.spelling.stored(value.value)
        if stored is None:
            hint = did_you_mean(value.value, field.spelling.choices)
            raise self.error(f"{value.value!r} is no {field.spelling.kind}.{hint}", position=value.position)
        return stored


def _list_condition(field: Field, operator: str, values: list[Constant]) -> Sql:
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


def _not_allowed(field: Field, operator: str) -> str:
    wanted = ", ".join(_ALLOWED[field.type]).replace("STARTS", "STARTS WITH").replace("ENDS", "ENDS WITH")
    if field.type == "list" and operator in ("=", "!=", *SUBSTRINGS):
        return f'{field.name} is a list; ask with HAS, such as {field.name} HAS "…", not with {operator}'
    return f"{field.name} is of type {field.type}, which takes {wanted}; not {operator}"
