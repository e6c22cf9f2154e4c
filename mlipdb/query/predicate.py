"""A condition on one value, as SQL over a column and as Python over a value."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Double, and_, func, literal

Constant = str | int | float | bool

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SUBSTRINGS = ("CONTAINS", "STARTS", "ENDS")


@dataclass(frozen=True)
class Predicate:
    """A value's relation to a constant, such as ``>= 5`` or ``CONTAINS "Fe"``; strings compare letter by letter."""

    operator: str
    constant: Constant

    def sql(self, column: ColumnElement[Any]) -> ColumnElement[bool]:
        """The condition on a column; NULL where the column is."""
        if self.operator in COMPARISONS:
            condition: ColumnElement[bool] = COMPARISONS[self.operator](column, _bound(self.constant))
            return condition
        return _substring_sql(column, self.operator, text=str(self.constant))

    def holds(self, value: Constant) -> bool:
        """Whether a known value satisfies the condition."""
        if self.operator in COMPARISONS:
            return bool(COMPARISONS[self.operator](value, self.constant))
        text, part = str(value), str(self.constant)
        return {"CONTAINS": part in text, "STARTS": text.startswith(part), "ENDS": text.endswith(part)}[self.operator]


def _bound(constant: Constant) -> Any:
    """A parameter with a wide type of its own: a column's SMALLINT would cut 2.5 or 100000 in PostgreSQL."""
    if isinstance(constant, str | bool):
        return constant
    return literal(constant, BigInteger() if isinstance(constant, int) else Double())


def _substring_sql(column: ColumnElement[Any], kind: str, *, text: str) -> ColumnElement[bool]:
    """Without LIKE, which ignores case in SQLite and gives % and _ a meaning."""
    if kind == "STARTS":
        return func.substr(column, 1, len(text)) == text
    if kind == "ENDS":
        start = func.length(column) - len(text) + 1
        return and_(start >= 1, func.substr(column, start) == text)
    return func.replace(column, text, "") != column if text else func.length(column) >= 0
