"""Frozen subsets: the structures that a filter matched once, with the part of the split that each is in."""

import hashlib
import re
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlipdb.catalog import StructureRow, Subset, SubsetMember
from mlipdb.database import Database
from mlipdb.errors import ConfigError, NotFoundError, QueryError, did_you_mean
from mlipdb.query import check_subset_name, fields, structure_ids
from mlipdb.subsets.assign import Assigned, Members, actual_fractions, assign, held_back
from mlipdb.subsets.members import add_members, read_members
from mlipdb.subsets.split_files import read_split_file
from mlipdb.subsets.splits import PARTS, Fractions, Split, format_fractions, make_split, parse_fractions

LEAK = (
    "split by frame: frames of one relaxation are nearly the same and land on both sides, so the error on the test "
    "part is too small; split by material unless that is what you want"
)
SHARED = (
    "{} materials have frames in more than one part of this split, so the error on the test part is too small; "
    "`mlipdb leakage` says more"
)

Ids = Int64[np.ndarray, " _"]


class SplitLeakWarning(UserWarning):
    """The parts of a split share materials."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FrozenSubset:
    """A named, frozen set of structures. ids ascend; splits holds those of train, validation and test, ascending too.

    hash is a SHA-256 of the members' sources, external ids and contents: the same data in another database gives the
    same hash, whatever the ids are there.
    """

    id: int
    name: str
    filter: str
    hash: str
    split_by: str
    fractions: tuple[float, float, float]
    seed: int
    created_at: datetime
    ids: Ids
    splits: dict[str, Ids]

    @property
    def empty_parts(self) -> tuple[str, ...]:
        """The parts that were asked for (a fraction above 0) and got no structure, as happens to few materials."""
        wanted = zip(PARTS, self.fractions, strict=True)
        return tuple(part for part, fraction in wanted if fraction and not len(self.splits[part]))

    def describe(self) -> dict[str, object]:
        """Plain values: everything but the ids."""
        return {
            "name": self.name,
            "filter": self.filter,
            "hash": self.hash,
            "size": len(self.ids),
            "split_by": self.split_by,
            "fractions": format_fractions(self.fractions),
            "seed": self.seed,
            "created_at": self.created_at.isoformat(),
            "splits": {part: len(self.splits[part]) for part in PARTS},
            "empty_parts": list(self.empty_parts),
        }


@dataclass(frozen=True, eq=False)
class SubsetDiff:
    """How two subsets of one database differ. moved are the structures of both that are in another part."""

    only_first: Ids
    only_second: Ids
    both: Ids
    moved: Ids

    @property
    def same(self) -> bool:
        """True when members and parts are equal."""
        return not (len(self.only_first) or len(self.only_second) or len(self.moved))


@dataclass(frozen=True)
class _Members:
    """What a filter matches now: ids ascending, the part of each, the hash of all, materials in several parts."""

    ids: Ids
    parts: list[str]
    hash: str
    shared_materials: int = 0


def freeze(
    db: Database,
    name: str,
    *,
    filter: str,
    split_by: str = "material",
    fractions: Fractions = (90, 5, 5),
    seed: int = 0,
    split_file: Path | None = None,
) -> FrozenSubset:
    """Store what a filter matches now under a name; the same content under that name again is returned as it is.

    split_by is ``material``, ``frame``, ``system``, ``element:Y``, ``fold:1/5`` or ``tag:split`` (see Split), a
    split_file the official split of a source; then the fractions stored are those that come out.

    Raises QueryError for a filter or name that cannot be used, ConfigError for a split that cannot be or when the name
    holds something else. Warns when frames of one material may land in two parts.
    """
    split_by, named = (split_by, None) if split_file is None else read_split_file(split_file)
    split = make_split(by=split_by, fractions=fractions, seed=seed, named=named)
    check_subset_name(name, fields=fields({}))
    if split.by == "frame":
        warnings.warn(LEAK, SplitLeakWarning, stacklevel=2)
    with db.session() as session:
        members = _find_members(session, filter, split=split)
    if not len(members.ids):
        raise QueryError(f"filter {filter!r} matches no structure; nothing to freeze. Try `mlipdb query` on its parts")
    if members.shared_materials:
        warnings.warn(SHARED.format(members.shared_materials), SplitLeakWarning, stacklevel=2)
    if split.given:
        split = replace(split, fractions=actual_fractions(members.parts))
    return _store(db, name, filter=filter, split=split, members=members)


def freeze_chosen(
    db: Database, name: str, ids: Ids, *, about: str, validation: float = 10.0, seed: int = 0
) -> FrozenSubset:
    """Store these structures under a name: a choice that no filter describes; about says how it came to be.

    Materials in an order that the seed decides are the validation part until it holds validation per cent, at least
    one structure; all others are the train part, which is everything where there is one material only. The same choice
    under that name again is returned as it is. Raises QueryError for a name that cannot be used or without structures,
    ConfigError when the name holds something else.
    """
    check_subset_name(name, fields=fields({}))
    chosen = np.unique(ids)
    if not len(chosen):
        raise QueryError(f"no structure was chosen for subset {name!r}; nothing to freeze")
    with db.session() as session:
        facts = read_members(session, chosen)
    parts = held_back(facts.materials, percent=validation, seed=seed)
    split = make_split(fractions=(100 - validation, validation, 0), seed=seed)
    return _store(db, name, filter=about, split=split, members=_Members(chosen, parts, facts.hash))


def load(db: Database, name: str) -> FrozenSubset:
    """The frozen subset of a name. Raises NotFoundError with a suggestion."""
    with db.session() as session:
        row = session.scalars(select(Subset).where(Subset.name == name)).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no frozen subset {name!r}.{did_you_mean(name, names(db))}")
        return _stored(session, row)


def names(db: Database) -> list[str]:
    """The names of all frozen subsets, in alphabetical order."""
    with db.session() as session:
        return sorted(session.scalars(select(Subset.name)))


def overview(db: Database) -> list[dict[str, object]]:
    """Name, filter, size, split and hash of every frozen subset, without its members."""
    columns = (Subset.name, Subset.filter, Subset.size, Subset.split_by, Subset.fractions, Subset.seed, Subset.hash)
    with db.session() as session:
        return [dict(row) for row in session.execute(select(*columns).order_by(Subset.name)).mappings()]


def diff(db: Database, first: str, second: str) -> SubsetDiff:
    """What is in one subset and not in the other, and what changed its part."""
    one, other = load(db, first), load(db, second)
    both = np.intersect1d(one.ids, other.ids, assume_unique=True)
    stayed = [np.intersect1d(one.splits[part], other.splits[part], assume_unique=True) for part in PARTS]
    return SubsetDiff(
        only_first=np.setdiff1d(one.ids, other.ids, assume_unique=True),
        only_second=np.setdiff1d(other.ids, one.ids, assume_unique=True),
        both=both,
        moved=np.setdiff1d(both, np.concatenate(stayed), assume_unique=True),
    )


def resolve(db: Database, text: str) -> FrozenSubset:
    """The frozen subset of that name; else the text is a filter, frozen under a name made of it and of its content.

    The same filter on the same data gives the same subset; on more data a new one, so a run can be repeated either way.
    """
    if text in names(db):
        return load(db, text)
    split = make_split()
    with db.session() as session:
        members = _find_members(session, text, split=split)
    if not len(members.ids):
        raise QueryError(f"filter {text!r} matches no structure; see what is there with `mlipdb query all`")
    digest = hashlib.sha256(f"{text.strip()}\n{members.hash}\n{split}".encode()).hexdigest()
    words = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40] or "all"
    return _store(db, f"filter-{words}-{digest[:10]}", filter=text, split=split, members=members)


def _find_members(session: Session, filter: str, *, split: Split) -> _Members:
    ids = structure_ids(session, filter)
    facts = read_members(session, ids)
    if split.by == "material":
        parts = {material: split.part(material) for material in set(facts.materials)}
        found = Assigned([parts[material] for material in facts.materials], 0)
    elif split.by == "frame":
        pairs = zip(facts.sources, facts.external_ids, strict=True)
        found = Assigned([split.part(f"{source}/{external}") for source, external in pairs], 0)
    else:
        found = assign(session, split, Members(ids.tolist(), facts.materials, facts.external_ids))
    return _Members(ids, found.parts, facts.hash, found.shared_materials)


def _store(db: Database, name: str, *, filter: str, split: Split, members: _Members) -> FrozenSubset:
    """Insert the rows, or return what has that name already when its content is the same."""
    settings = {"split_by": split.by, "fractions": format_fractions(split.fractions), "seed": split.seed}
    with db.write() as session:
        row = session.scalars(select(Subset).where(Subset.name == name)).one_or_none()
        if row is None:
            row = Subset(name=name, filter=filter, hash=members.hash, size=len(members.ids), **settings)
            row.created_at = datetime.now(UTC)
            session.add(row)
            session.flush()
            add_members(session, row.id, members.ids, members.parts)
        else:
            _check_same(row, settings=settings, members=members)
        return _frozen(row, members.ids, members.parts)


def _check_same(row: Subset, *, settings: dict[str, object], members: _Members) -> None:
    changed = [
        f"{key} is {getattr(row, key)}, not {value}" for key, value in settings.items() if getattr(row, key) != value
    ]
    if row.hash != members.hash:
        changed.insert(0, f"it has {row.size} structures, the filter now matches {len(members.ids)} (other content)")
    if changed:
        raise ConfigError(
            f"subset {row.name!r} is frozen already with something else: {'; '.join(changed)}. Choose another name, or "
            f"use it as it is"
        )


def _stored(session: Session, row: Subset) -> FrozenSubset:
    columns = select(SubsetMember.structure_id, SubsetMember.split).where(SubsetMember.subset_id == row.id)
    found = session.connection().execute(columns.order_by(SubsetMember.structure_id)).all()
    return _frozen(row, np.array([identity for identity, _ in found], np.int64), [part for _, part in found])


def _frozen(row: Subset, ids: Ids, parts: list[str]) -> FrozenSubset:
    part_of = np.array(parts, dtype="U16")
    train, validation, test = parse_fractions(row.fractions)
    return FrozenSubset(
        id=row.id,
        name=row.name,
        filter=row.filter,
        hash=row.hash,
        split_by=row.split_by,
        fractions=(train, validation, test),
        seed=row.seed,
        created_at=row.created_at.replace(tzinfo=UTC),  # SQLite gives the time back without its zone
        ids=ids,
        splits={part: ids[part_of == part] for part in PARTS},
    )


def materials_per_part(db: Database, subset: FrozenSubset) -> dict[str, int]:
    """How many materials each part holds."""
    query = select(SubsetMember.split, StructureRow.material_id).distinct()
    query = query.join(StructureRow, StructureRow.id == SubsetMember.structure_id)
    with db.session() as session:
        found = Counter(part for part, _ in session.execute(query.where(SubsetMember.subset_id == subset.id)))
    return {part: found[part] for part in PARTS}
