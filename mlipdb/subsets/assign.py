"""The part of each member of a subset, for splits that ask more than the name of its material or frame."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from mlipdb.catalog import StructureElement, StructureRow, StructureTag, Tag
from mlipdb.errors import ConfigError
from mlipdb.structures import SYMBOLS
from mlipdb.subsets.splits import PART_NAMES, PARTS, Split, uniform

CHUNK = 500  # below every database's limit of bound parameters


@dataclass(frozen=True)
class Members:
    """Ids of structures with the names of their materials and the ids that their sources give them, in one order."""

    ids: Sequence[int]
    materials: Sequence[str]
    external_ids: Sequence[str]


@dataclass(frozen=True)
class Assigned:
    """The part of each member, and how many materials have frames in more than one part."""

    parts: list[str]
    shared_materials: int


def assign(session: Session, split: Split, members: Members) -> Assigned:
    """The part of each member. Raises ConfigError where the source or the file names none for some of them."""
    parts = _parts(session, split, members)
    return Assigned(parts, _shared_materials(members, parts))


def held_back(materials: Sequence[str], *, percent: float, seed: int) -> list[str]:
    """Train or validation for each member: whole materials are held back until they hold that many per cent.

    The seed decides their order. At least one structure is held back, but never the last material.
    """
    sizes = Counter(materials)
    wanted, held = max(1.0, len(materials) * percent / 100), 0
    back: set[str] = set()
    for material in sorted(sizes, key=lambda key: (uniform(f"validation:{key}", seed=seed), key))[: len(sizes) - 1]:
        if held >= wanted or not percent:
            break
        back.add(material)
        held += sizes[material]
    return ["validation" if material in back else "train" for material in materials]


def _parts(session: Session, split: Split, members: Members) -> list[str]:
    if split.kind == "system":
        systems = _column(session, members.ids, StructureRow.chemical_system)
        return [split.part(str(systems[number])) for number in members.ids]
    if split.kind == "element":
        return _by_element(session, split, members)
    if split.kind == "fold":
        return [split.part(material) for material in members.materials]
    found = _by_tag(session, split, members) if split.kind == "tag" else _by_file(session, split, members)
    _check_named(found, split, members)
    return [part or "" for part in found]


def actual_fractions(parts: Sequence[str]) -> tuple[float, float, float]:
    """Percent of train, validation and test, to two places."""
    train, validation, test = (round(100 * parts.count(part) / len(parts), 2) for part in PARTS)
    return train, validation, test


def _shared_materials(members: Members, parts: Sequence[str]) -> int:
    first: dict[str, str] = {}
    pairs = zip(members.materials, parts, strict=True)
    return len({material for material, part in pairs if first.setdefault(material, part) != part})


def _by_element(session: Session, split: Split, members: Members) -> list[str]:
    holding = select(StructureElement.structure_id).where(StructureElement.atomic_number.in_(split.elements))
    held = set(session.scalars(holding))
    if held.isdisjoint(members.ids):
        names = ", ".join(SYMBOLS[number] for number in split.elements)
        raise ConfigError(f"split by {split.by!r}: no member holds {names}; the test part would be empty")
    pairs = zip(members.ids, members.materials, strict=True)
    return ["test" if number in held else split.rest(material) for number, material in pairs]


def _by_tag(session: Session, split: Split, members: Members) -> list[str | None]:
    query = select(StructureTag.structure_id, Tag.value).join(Tag, Tag.id == StructureTag.tag_id)
    found = {row[0]: row[1] for row in session.execute(query.where(Tag.name == split.argument))}
    unknown = sorted(
        {value for number in members.ids if (value := found.get(number)) and value.lower() not in PART_NAMES}
    )
    if unknown:
        raise ConfigError(
            f"split by {split.by!r}: {unknown[0]!r} is not a part of a split (train, val or test); choose another "
            "tag, or narrow the filter"
        )
    return [PART_NAMES.get(found.get(number, "").lower()) for number in members.ids]


def _by_file(session: Session, split: Split, members: Members) -> list[str | None]:
    named: Mapping[str | int, str] = split.named
    rows: dict[int, Any] = {}
    if any(isinstance(key, int) for key in named):
        rows = _column(session, members.ids, StructureRow.source_row)
        _check_rows_differ(rows, split, members)
    found: list[str | None] = []
    for number, material, external in zip(members.ids, members.materials, members.external_ids, strict=True):
        row = rows.get(number)
        by_row = None if row is None else named.get(row)
        found.append(by_row or named.get(external) or named.get(material))
    return found


def _check_rows_differ(rows: Mapping[int, Any], split: Split, members: Members) -> None:
    """Raise ConfigError where two members have one row that the split names: they are of two files."""
    first: dict[int, int] = {}
    for place, number in enumerate(members.ids):
        row = rows.get(number)
        if row is not None and row in split.named and first.setdefault(row, place) != place:
            twins = [members.external_ids[one] for one in (first[row], place)]
            raise ConfigError(
                f"split by {split.by!r}: it counts rows, and row {row} is both {twins[0]!r} and {twins[1]!r}, which "
                "are of two files; narrow the filter to the file that the split counts, or name structures by their ids"
            )


def _check_named(found: Sequence[str | None], split: Split, members: Members) -> None:
    missing = [place for place, part in enumerate(found) if part is None]
    if not missing:
        return
    example = members.external_ids[missing[0]]
    raise ConfigError(
        f"split by {split.by!r} says nothing of {len(missing)} of {len(found)} structures (first {example!r}); narrow "
        "the "
        f'filter to those that it names, such as source="…"'
        + (f' AND tags HAS "{split.argument}=train"' * (split.kind == "tag"))
    )


def _column(session: Session, ids: Sequence[int], column: InstrumentedAttribute[Any]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for start in range(0, len(ids), CHUNK):
        query = select(StructureRow.id, column).where(StructureRow.id.in_(ids[start : start + CHUNK]))
        found.update((row[0], row[1]) for row in session.execute(query))
    return found
