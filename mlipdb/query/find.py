"""Which structures a filter matches: their number or their ids, from facets where they can answer, else by SQL.

This is the one place that decides. Both ways give the same answer; tests/query/test_facets.py holds them together.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlipdb.catalog import Disagreement, Subset
from mlipdb.catalog.packing import Bits, UnknownPackingError
from mlipdb.query.bitmaps import Bitmaps, Truth, read_bitmaps
from mlipdb.query.compile import select_matching
from mlipdb.query.resolve import Condition, Conjunction, Negation, Term, resolve


def frozen_subsets(session: Session) -> dict[str, int]:
    """Names and ids of the frozen subsets: what a filter may name."""
    return {row.name: row.id for row in session.execute(select(Subset.name, Subset.id))}


def stored_disagreements(session: Session) -> dict[str, int]:
    """Names and ids of the stored disagreements: what a field's name may end in."""
    return {row.name: row.id for row in session.execute(select(Disagreement.name, Disagreement.id))}


def resolve_here(session: Session, text: str) -> Condition:
    """What a filter asks of this catalog. Raises QueryError."""
    return resolve(text, subsets=frozen_subsets(session), disagreements=stored_disagreements(session))


def count_structures(session: Session, text: str) -> int:
    """The number of structures that a filter matches. Raises QueryError."""
    condition = resolve_here(session, text)
    found = match_facets(session, condition)
    if found is not None:
        return int(np.bitwise_count(found[1]).sum())
    ids = select_matching(condition).order_by(None).subquery()
    return session.scalar(select(func.count()).select_from(ids)) or 0


def structure_ids(session: Session, text: str) -> Int64[np.ndarray, " structures"]:
    """The ids of the structures that a filter matches, ascending. Raises QueryError."""
    condition = resolve_here(session, text)
    found = match_facets(session, condition)
    if found is not None:
        return found[0].ids(found[1])
    return np.fromiter(session.scalars(select_matching(condition)), dtype=np.int64)


def match_facets(session: Session, condition: Condition) -> tuple[Bitmaps, Bits] | None:
    """The bitmaps that were read and what matches among them; None where only SQL can answer.

    That is so where a field has no facet (a formula, a subset, an energy), or a shard has none yet.
    """
    names: set[str] = set()
    for term in _terms(condition):
        facet = term.field.facet
        needed = None if facet is None else facet.names(term.operator, term.values)
        if needed is None:
            return None
        names |= needed
    maps = read_bitmaps(session, names)
    if maps is None:
        return None
    try:
        return maps, _truth(condition, maps).true
    except UnknownPackingError:
        return None


def _terms(condition: Condition) -> Iterator[Term]:
    if isinstance(condition, Term):
        yield condition
    elif isinstance(condition, Negation):
        yield from _terms(condition.condition)
    else:
        for each in condition.conditions:
            yield from _terms(each)


def _truth(condition: Condition, maps: Bitmaps) -> Truth:
    if isinstance(condition, Term):
        if condition.field.facet is None:
            raise TypeError(f"field {condition.field.name} has no facet")
        return condition.field.facet.truth(condition.operator, condition.values, maps)
    if isinstance(condition, Negation):
        inner = _truth(condition.condition, maps)
        return Truth(inner.false, inner.true)
    truths = [_truth(each, maps) for each in condition.conditions]
    if isinstance(condition, Conjunction):
        true, false = maps.everything, np.zeros_like(maps.everything)
        for each in truths:
            true, false = true & each.true, false | each.false
        return Truth(true, false)
    true, false = np.zeros_like(maps.everything), maps.everything
    for each in truths:
        true, false = true | each.true, false & each.false
    return Truth(true, false)
