"""Which facets of the shards answer a comparison, and how: the counterpart of relations.py and lists.py."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Num
from sqlalchemy import select

from mlipdb.catalog import Source
from mlipdb.catalog.label_facets import LABEL_ARRAYS, gap_step
from mlipdb.catalog.packing import Bits
from mlipdb.query.bitmaps import Bitmaps, Truth
from mlipdb.query.predicate import COMPARISONS, Constant, Predicate
from mlipdb.structures import ATOMIC_NUMBERS

EXACT = 2**53  # up to here a whole number is the same as a float
Values = Num[np.ndarray, " _"]
Chosen = Bool[np.ndarray, " _"]


@runtime_checkable
class FacetRelation(Protocol):
    """How a field is answered from facets; operator and values are those of a Term."""

    def names(self, operator: str, values: Sequence[Constant]) -> set[str] | None:
        """The facets that the answer needs; None where facets cannot answer."""
        ...

    def truth(self, operator: str, values: Sequence[Constant], maps: Bitmaps) -> Truth:
        """Where the comparison is true and where it is false."""
        ...


@dataclass(frozen=True)
class ColumnFacet:
    """Numbers, one or more a structure, unknown where it has none."""

    name: str

    def names(self, operator: str, values: Sequence[Constant]) -> set[str] | None:
        """The facets that the answer needs; None where facets cannot answer."""
        exact = all(isinstance(value, float) or abs(int(value)) <= EXACT for value in values)
        return {self.name} if exact else None

    def truth(self, operator: str, values: Sequence[Constant], maps: Bitmaps) -> Truth:
        """Where the comparison is true and where it is false."""
        if operator.startswith("IS"):
            return _known(maps.rows_where(self.name, _everything), operator, maps)
        compare = COMPARISONS[operator]
        return _split(self.name, lambda stored: compare(stored, values[0]), maps)


@dataclass(frozen=True)
class GapFacet:
    """Band gaps: by their steps where those decide, which is so for the start of a step, else by themselves."""

    def names(self, operator: str, values: Sequence[Constant]) -> set[str] | None:
        """The facets that the answer needs; None where facets cannot answer."""
        return (
            {"band_gap/steps"}
            if self._steps_decide(operator, values)
            else ColumnFacet("band_gap").names(operator, values)
        )

    def truth(self, operator: str, values: Sequence[Constant], maps: Bitmaps) -> Truth:
        """Where the comparison is true and where it is false."""
        if not self._steps_decide(operator, values):
            return ColumnFacet("band_gap").truth(operator, values, maps)
        return ColumnFacet("band_gap/steps").truth(operator, [gap_step(float(value)) for value in values], maps)

    def _steps_decide(self, operator: str, values: Sequence[Constant]) -> bool:
        """For ``>=`` and ``<`` a constant that no smaller number shares its step with."""
        if operator.startswith("IS"):
            return True
        if operator not in (">=", "<") or abs(float(values[0])) >= EXACT:
            return False
        constant = float(values[0])
        return gap_step(math.nextafter(constant, -math.inf)) < gap_step(constant)


@dataclass(frozen=True)
class CodedFacet:
    """Values that follow from a small whole number, such as the symbol of a space group."""

    name: str
    meanings: Mapping[int, str | int]

    def names(self, operator: str, values: Sequence[Constant]) -> set[str] | None:
        """The facets that the answer needs; None where facets cannot answer."""
        return {self.name}

    def truth(self, operator: str, values: Sequence[Constant], maps: Bitmaps) -> Truth:
        """Where the comparison is true and where it is false."""
        if operator.startswith("IS"):
            return _known(maps.rows_where(self.name, _everything), operator, maps)
        predicate = Predicate(operator, values[0])
        codes = [code for code, meaning in self.meanings.items() if predicate.holds(meaning)]
        return _split(self.name, lambda stored: np.isin(stored, codes), maps)


@dataclass(frozen=True)
class SourceFacet:
    """The name of the source, which a shard holds by its number."""

    def names(self, operator: str, values: Sequence[Constant]) -> set[str] | None:
        """The facets that the answer needs; None where facets cannot answer."""
        return {"source"}

    def truth(self, operator: str, values: Sequence[Constant], maps: Bitmaps) -> Truth:
        """Where the comparison is true and where it is false."""
        named = {row.id: row.name for row in maps.session.execute(select(Source.id, Source.name))}
        return CodedFacet("source", named).truth(operator, values, maps)


@dataclass(frozen=True)
class IdFacet:
    """The structure's number, which needs no facet but the ids themselves."""

    def names(self, operator: str, values: Sequence[Constant]) -> set[str] | None:
        """The facets that the answer needs; None where facets cannot answer."""
        return None if ColumnFacet("ids").names(operator, values) is None else set()

    def truth(self, operator: str, values: Sequence[Constant], maps: Bitmaps) -> Truth:
        """Where the comparison is true and where it is false."""
        if operator.startswith("IS"):
            return _known(maps.everything, operator, maps)
        return maps.decide(maps.ids_where(lambda ids: COMPARISONS[operator](ids, values[0])))


@dataclass(frozen=True)
class ElementsFacet:
    """The chemical elements: one set of structures for each."""

    def names(self, operator: str, values: Sequence[Constant]) -> set[str] | None:
        """The facets that the answer needs; None where facets cannot answer."""
        if operator.startswith("LENGTH"):
            return ColumnFacet("nelements").names(operator, values)
        sets = {_set_name(str(value)) for value in values}
        return sets | {"nelements"} if operator == "HAS ONLY" else sets

    def truth(self, operator: str, values: Sequence[Constant], maps: Bitmaps) -> Truth:
        """Where the comparison is true and where it is false."""
        if operator.startswith("IS"):
            return _known(maps.everything, operator, maps)
        if operator.startswith("LENGTH"):
            return ColumnFacet("nelements").truth(operator.removeprefix("LENGTH "), values, maps)
        sets = [maps.rows_in(_set_name(symbol)) for symbol in dict.fromkeys(map(str, values))]
        if operator == "HAS ONLY":
            return maps.decide(_only(sets, maps))
        join = np.bitwise_and if operator == "HAS ALL" else np.bitwise_or
        return maps.decide(join.reduce(sets))


@dataclass(frozen=True)
class SystemFacet:
    """The chemical system, such as Fe-Li-O: all of these elements and as many."""

    def names(self, operator: str, values: Sequence[Constant]) -> set[str] | None:
        """The facets that the answer needs; None where facets cannot answer."""
        if operator.startswith("IS"):
            return set()
        if operator not in ("=", "!="):
            return None
        return {"nelements"} | {_set_name(symbol) for symbol in str(values[0]).split("-")}

    def truth(self, operator: str, values: Sequence[Constant], maps: Bitmaps) -> Truth:
        """Where the comparison is true and where it is false."""
        if operator.startswith("IS"):
            return _known(maps.everything, operator, maps)
        symbols = str(values[0]).split("-")
        same_number = maps.rows_where("nelements", lambda stored: stored == len(symbols))
        every = np.bitwise_and.reduce([same_number, *(maps.rows_in(_set_name(symbol)) for symbol in symbols)])
        truth = maps.decide(every)
        return truth if operator == "=" else Truth(truth.false, truth.true)


@dataclass(frozen=True)
class ArrayFacet:
    """Whether a DFT label has an array; always known."""

    array: str

    def names(self, operator: str, values: Sequence[Constant]) -> set[str] | None:
        """The facets that the answer needs; None where facets cannot answer."""
        return {"arrays"}

    def truth(self, operator: str, values: Sequence[Constant], maps: Bitmaps) -> Truth:
        """Where the comparison is true and where it is false."""
        if operator.startswith("IS"):
            return _known(maps.everything, operator, maps)
        code = LABEL_ARRAYS[self.array]
        truth = maps.decide(maps.rows_where("arrays", lambda stored: (stored & code) > 0))
        return truth if (operator == "=") == bool(values[0]) else Truth(truth.false, truth.true)


def _set_name(symbol: str) -> str:
    return f"elements/{ATOMIC_NUMBERS[symbol]}"


def _everything(stored: Values) -> Chosen:
    return np.ones(len(stored), dtype=bool)


def _known(known: Bits, operator: str, maps: Bitmaps) -> Truth:
    truth = maps.decide(known)
    return truth if operator == "IS KNOWN" else Truth(truth.false, truth.true)


def _split(name: str, holds: Callable[[Values], Any], maps: Bitmaps) -> Truth:
    """True where some value holds; false where a value is known and none holds."""
    true = maps.rows_where(name, holds)
    return Truth(true, maps.rows_where(name, _everything) & ~true)


def _only(sets: Sequence[Bits], maps: Bitmaps) -> Bits:
    """Where a structure has as many of the elements as it has elements: sums of bits, kept as binary digits."""
    digits: list[Bits] = []
    for carry in sets:
        for place, digit in enumerate(digits):
            digits[place], carry = digit ^ carry, digit & carry
        digits.append(carry)
    found = np.zeros_like(maps.everything)
    for size in range(1, len(sets) + 1):
        equal = maps.rows_where("nelements", lambda stored, size=size: stored == size)  # type: ignore[misc]
        for place, digit in enumerate(digits):
            equal = equal & (digit if size >> place & 1 else ~digit)
        found = found | equal
    return found
