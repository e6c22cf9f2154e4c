"""A filter's tree with its fields looked up and its constants checked."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlipdb.errors import QueryError, did_you_mean
from mlipdb.query.caret import query_error
from mlipdb.query.fields import NOT_STORED, NOTHING, Field, fields
from mlipdb.query.parse import Comparison, Node, Not, Or, Value, parse
from mlipdb.query.predicate import COMPARISONS, SUBSTRINGS, Constant
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
class Term:
    """A comparison of a field; values are in the type and spelling of the catalog, operator as in Comparison."""

    field: Field
    operator: str
    values: tuple[Constant, ...]


@dataclass(frozen=True)
class Negation:
    """The opposite of a condition."""

    condition: "Condition"


@dataclass(frozen=True)
class Conjunction:
    """Every condition; none at all is everything."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True)
class Disjunction:
    """At least one of the conditions."""

    conditions: tuple["Condition", ...]


Condition = Term | Negation | Conjunction | Disjunction


def resolve(text: str, *, subsets: Mapping[str, int], disagreements: Mapping[str, int] = NOTHING) -> Condition:
    """What a filter asks. subsets and disagreements are those that it may name, with their ids.

    Raises QueryError that shows the place in the filter.
    """
    known = fields(subsets, disagreements)
    flags = [name for name, field in known.items() if field.type == "boolean"]
    return _Resolver(text, known).node(parse(text, subsets=subsets, fields=list(known), flags=flags))


class _Resolver:
    """Checks node after node; keeps the text for errors and the fields."""

    def __init__(self, text: str, known: Mapping[str, Field]) -> None:
        self.text, self.known = text, known

    def error(self, message: str, *, position: int) -> QueryError:
        return query_error(message, text=self.text, position=position)

    def node(self, node: Node) -> Condition:
        if isinstance(node, Comparison):
            return self.comparison(node)
        if isinstance(node, Not):
            return Negation(self.node(node.term))
        conditions = tuple(self.node(child) for child in node.terms)
        return Disjunction(conditions) if isinstance(node, Or) else Conjunction(conditions)

    def comparison(self, comparison: Comparison) -> Term:
        field = self.field(comparison)
        if comparison.operator not in _ALLOWED[field.type]:
            raise self.error(_not_allowed(field, comparison.operator), position=comparison.property.position)
        values = tuple(self.constant(field, comparison, value) for value in comparison.values)
        return Term(field, comparison.operator, values)

    def field(self, comparison: Comparison) -> Field:
        name, position = comparison.property.name, comparison.property.position
        if name in self.known:
            if choices := self.known[name].choices:
                raise self.error(f"{name} could mean {' or '.join(choices)}; write one of them", position=position)
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


def _not_allowed(field: Field, operator: str) -> str:
    wanted = ", ".join(_ALLOWED[field.type]).replace("STARTS", "STARTS WITH").replace("ENDS", "ENDS WITH")
    if field.type == "list" and operator in ("=", "!=", *SUBSTRINGS):
        return f'{field.name} is a list; ask with HAS, such as {field.name} HAS "…", not with {operator}'
    return f"{field.name} is of type {field.type}, which takes {wanted}; not {operator}"
