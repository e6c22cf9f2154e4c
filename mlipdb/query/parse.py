"""A filter as a tree: shorthands rewritten, then the OPTIMADE grammar, then nodes with their places in the text."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, VisitError
from lark.tree import Meta
from optimade.filterparser.lark_parser import AVAILABLE_PARSERS

from mlipdb.errors import QueryError
from mlipdb.query.caret import query_error
from mlipdb.query.rewrite import Rewritten, rewrite

GRAMMAR_VERSION = (1, 2, 0)
MAX_DIGITS = 18  # a longer whole number does not fit 64 bits, so it becomes a float
_FLIPPED = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True)
class Value:
    """A constant and where it stands in the original text."""

    value: str | int | float | bool
    position: int


@dataclass(frozen=True)
class Property:
    """A field's name and where it stands in the original text."""

    name: str
    position: int


@dataclass(frozen=True)
class Comparison:
    """A field against constants.

    operator is =, !=, <, <=, >, >=, CONTAINS, STARTS, ENDS, HAS, HAS ALL, HAS ANY, HAS ONLY, LENGTH with one of the
    first six, IS KNOWN or IS UNKNOWN.
    """

    property: Property
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Not:
    """The opposite of a term."""

    term: "Node"


@dataclass(frozen=True)
class And:
    """Every term; no term at all is everything."""

    terms: tuple["Node", ...]


@dataclass(frozen=True)
class Or:
    """At least one of the terms."""

    terms: tuple["Node", ...]


Node = Comparison | Not | And | Or


def parse(
    text: str, *, subsets: Collection[str] = (), fields: Collection[str] = (), flags: Collection[str] = ()
) -> Node:
    """The tree of a filter; an empty one is And(()), which is everything.

    subsets are the names of frozen subsets, fields the field names, flags the boolean ones among them. Raises
    QueryError that shows the filter with a caret under the place.
    """
    _check_characters(text)
    rewritten = rewrite(text, subsets=subsets, fields=fields, flags=flags)
    try:
        tree = _grammar().parse(rewritten.text)
    except UnexpectedInput as error:
        raise _syntax_error(error, rewritten) from None
    try:
        node: Node = _Build(rewritten).transform(tree)
    except VisitError as error:
        raise error.orig_exc from None
    return node


@cache
def _grammar() -> Lark:
    """OPTIMADE's grammar as the optimade package ships it; its own parser class drops the places that we report."""
    path = AVAILABLE_PARSERS[GRAMMAR_VERSION]["default"]
    return Lark(path.read_text(), maybe_placeholders=False, propagate_positions=True)


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise query_error("this character is not valid Unicode", text=ascii(text)[1:-1], position=0) from error
    if "\0" in text:
        raise query_error("a filter cannot hold a NUL character", text=text, position=text.index("\0"))


def _syntax_error(error: UnexpectedInput, rewritten: Rewritten) -> QueryError:
    if not isinstance(error, UnexpectedCharacters):
        message, place = "the filter ends too early; a value is missing", len(rewritten.original.rstrip())
        return query_error(message, text=rewritten.original, position=place)
    allowed = error.allowed or set()
    if "ESCAPED_STRING" in allowed and "OPERATOR" not in allowed:
        message = "expected a value here: a number, a string in double quotes, TRUE or FALSE"
    elif "KNOWN" in allowed:
        message = "expected KNOWN or UNKNOWN here"
    elif "SIGNED_INT" in allowed:
        message = "expected a whole number here"
    elif "_AND" in allowed:
        message = "expected AND, OR or the end before this"
    else:
        message = "expected a comparison here: =, !=, <, <=, >, >=, HAS, IS KNOWN, CONTAINS, STARTS WITH, ENDS WITH"
    return query_error(message, text=rewritten.original, position=rewritten.place(error.pos_in_stream or 0))


@v_args(meta=True)
class _Build(Transformer[Token, Any]):
    """One method a rule of the grammar; children arrive already built."""

    def __init__(self, rewritten: Rewritten) -> None:
        super().__init__()
        self.rewritten = rewritten

    def _error(self, message: str, meta: Meta) -> QueryError:
        place = self.rewritten.place(meta.start_pos)
        return query_error(message, text=self.rewritten.original, position=place)

    def filter(self, meta: Meta, children: list[Node]) -> Node:
        if len(children) > 1:
            raise self._error("expected one filter; join its comparisons with AND or OR", meta)
        return children[0] if children else And(())

    def expression(self, meta: Meta, children: list[Node]) -> Node:
        return children[0] if len(children) == 1 else Or(tuple(children))

    def expression_clause(self, meta: Meta, children: list[Node]) -> Node:
        return children[0] if len(children) == 1 else And(tuple(children))

    def expression_phrase(self, meta: Meta, children: list[Any]) -> Node:
        return Not(children[1]) if len(children) == 2 else children[0]

    def comparison(self, meta: Meta, children: list[Node]) -> Node:
        return children[0]

    def property_first_comparison(self, meta: Meta, children: list[Any]) -> Comparison:
        operator, values = children[1]
        return Comparison(children[0], operator, tuple(values))

    def constant_first_comparison(self, meta: Meta, children: list[Any]) -> Comparison:
        constant, operator, other = children
        if not isinstance(other, Property):
            raise self._error("two constants are compared; name a field on one side", meta)
        return Comparison(other, _FLIPPED[str(operator)], (constant,))

    def value_op_rhs(self, meta: Meta, children: list[Any]) -> tuple[str, list[Value]]:
        return str(children[0]), [children[1]]

    def known_op_rhs(self, meta: Meta, children: list[Any]) -> tuple[str, list[Value]]:
        return f"IS {children[1]}", []

    def fuzzy_string_op_rhs(self, meta: Meta, children: list[Any]) -> tuple[str, list[Value]]:
        return str(children[0]), [children[-1]]

    def set_op_rhs(self, meta: Meta, children: list[Any]) -> tuple[str, list[Value]]:
        if len(children) == 3 and children[1].type == "OPERATOR":
            raise self._error(f"mlipdb does not have OPTIMADE's optional HAS {children[1]}", meta)
        values = children[-1] if isinstance(children[-1], list) else [children[-1]]
        return " ".join(map(str, children[:-1])), values

    def length_op_rhs(self, meta: Meta, children: list[Any]) -> tuple[str, list[Value]]:
        return f"LENGTH {children[1] if len(children) == 3 else '='}", [children[-1]]

    def set_zip_op_rhs(self, meta: Meta, children: list[Any]) -> None:
        raise self._error("mlipdb does not have OPTIMADE's optional correlated lists (a:b HAS x:y)", meta)

    def value_list(self, meta: Meta, children: list[Any]) -> list[Value]:
        if any(isinstance(child, Token) for child in children):
            raise self._error("mlipdb does not have OPTIMADE's optional operators inside a list of values", meta)
        return children

    def value(self, meta: Meta, children: list[Any]) -> Value:
        if isinstance(children[0], Property):
            raise self._error("mlipdb compares a field with a constant, not with another field", meta)
        return children[0]  # type: ignore[no-any-return]  # string, number or bool built below

    def constant(self, meta: Meta, children: list[Value]) -> Value:
        return children[0]

    def non_string_value(self, meta: Meta, children: list[Any]) -> Any:
        return children[0]

    def not_implemented_string(self, meta: Meta, children: list[Any]) -> Any:
        return children[0]

    def property(self, meta: Meta, children: list[Token]) -> Property:
        if len(children) > 1:
            raise self._error("mlipdb has no nested property names (a.b)", meta)
        return Property(str(children[0]), self.rewritten.place(meta.start_pos))

    def string(self, meta: Meta, children: list[Token]) -> Value:
        text = re.sub(r"\\(.)", r"\1", str(children[0])[1:-1], flags=re.DOTALL)
        return Value(text, self.rewritten.place(meta.start_pos))

    def number(self, meta: Meta, children: list[Token]) -> Value:
        whole = children[0].type == "SIGNED_INT" and len(children[0]) <= MAX_DIGITS
        return Value(int(children[0]) if whole else float(children[0]), self.rewritten.place(meta.start_pos))

    def signed_int(self, meta: Meta, children: list[Token]) -> Value:
        return self.number(meta, children)

    def bool(self, meta: Meta, children: list[Token]) -> Value:
        # the grammar drops the word itself, so it is read from its place
        word = self.rewritten.text[meta.start_pos : meta.end_pos]
        return Value(word == "TRUE", self.rewritten.place(meta.start_pos))
