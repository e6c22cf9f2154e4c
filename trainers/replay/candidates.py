"""Candidates of a replay set: structures of a subset or filter whose elements fit those of the fine-tuning."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from jaxtyping import Int64
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlipdb.catalog import StructureElement, StructureRow
from mlipdb.database import Database
from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.query import structure_ids
from mlipdb.structures import SYMBOLS
from mlipdb.subsets import subset as subsets

ELEMENTS = {
    "any": "",
    "within": "of no other elements than",
    "exactly": "of exactly the elements",
    "containing": "with at least the elements",
}

CHUNK = 500  # parameters of one statement

Ids = Int64[np.ndarray, " _"]


def candidates(db: Database, source: str, *, elements: str, target: Collection[int], known: Collection[int]) -> Ids:
    """Ids, ascending: the train part of a frozen subset of that name, else what the filter matches, as elements say.

    elements is any, within, exactly or containing, each against the atomic numbers in target; structures with an
    element that is not among those known (the foundation's) are never candidates. Raises QueryError, ConfigError.
    """
    check_elements(elements)
    frozen = subsets.load(db, source).splits["train"] if source in subsets.names(db) else None
    with db.session() as session:
        ids = structure_ids(session, source) if frozen is None else frozen
        if known:
            ids = np.intersect1d(ids, _made_of(session, known), assume_unique=True)
        if elements in ("within", "exactly"):
            ids = np.intersect1d(ids, _made_of(session, target), assume_unique=True)
        if elements in ("containing", "exactly"):
            ids = np.intersect1d(ids, _holding(session, target), assume_unique=True)
    return ids


def check_elements(elements: str) -> None:
    """Raise ConfigError with a suggestion for a choice of elements that there is not."""
    if elements not in ELEMENTS:
        raise ConfigError(
            f"replay elements {elements!r} are unknown.{did_you_mean(elements, ELEMENTS)} Known: {', '.join(ELEMENTS)}"
        )


def of_same_materials(db: Database, ids: Ids) -> Ids:
    """These structures and all others of their materials, ascending: they are all but the same structures."""
    row = StructureRow
    with db.session() as session:
        materials = {
            material
            for some in _chunks(ids.tolist())
            for material in session.scalars(select(row.material_id).where(row.id.in_(some)).distinct())
        }
        found = [
            identity
            for some in _chunks(sorted(materials))
            for identity in session.scalars(select(row.id).where(row.material_id.in_(some)))
        ]
    return _ascending(found)


def _chunks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), CHUNK):
        yield numbers[start : start + CHUNK]


def described(elements: str, target: Collection[int]) -> str:
    """What the choice of elements asks for, in words that follow 'structures'; empty for any."""
    words = ELEMENTS[elements]
    return words and f"{words} {' '.join(SYMBOLS[number] for number in sorted(target))}"


def _made_of(session: Session, numbers: Collection[int]) -> Ids:
    """Structures all of whose elements are among these."""
    held = func.count(StructureElement.atomic_number)
    query = select(StructureElement.structure_id).join(StructureRow, StructureRow.id == StructureElement.structure_id)
    query = query.where(StructureElement.atomic_number.in_(sorted(numbers)))
    query = query.group_by(StructureElement.structure_id, StructureRow.nelements).having(held == StructureRow.nelements)
    return _ascending(session.scalars(query))


def _holding(session: Session, numbers: Collection[int]) -> Ids:
    """Structures that have all of these elements."""
    query = select(StructureElement.structure_id).where(StructureElement.atomic_number.in_(sorted(numbers)))
    query = query.group_by(StructureElement.structure_id)
    return _ascending(session.scalars(query.having(func.count(StructureElement.atomic_number) == len(set(numbers)))))


def _ascending(numbers: object) -> Ids:
    found: Ids = np.sort(np.fromiter(numbers, dtype=np.int64))  # type: ignore[call-overload]  # an iterable of ids
    return found
