"""What two sets of structures share: materials, contents, crystals. What a model saw in training is no test."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Int64
from sqlalchemy import select

from mlipdb.catalog import Duplicate, Material, Source, StructureRow
from mlipdb.database import Database
from mlipdb.errors import ConfigError, QueryError, did_you_mean
from mlipdb.subsets.fingerprint import fingerprint, stored_fingerprints
from mlipdb.subsets.splits import PARTS
from mlipdb.subsets.subset import load, names

MEASURES = ("material", "content", "fingerprint")
CHUNK = 500  # below every database's limit of bound parameters
EXAMPLES = 5

Ids = Int64[np.ndarray, " _"]


@dataclass(frozen=True)
class Shared:
    """What two sets share by one measure.

    keys counts materials, contents or fingerprints of both; first and second the structures of either set that have
    them; other_source those of the second whose likes in the first all come from other sources. examples are pairs of
    ids of structures with the key.
    """

    measure: str
    keys: int
    first: int
    second: int
    other_source: int
    examples: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Overlap:
    """Two sets by name, their sizes, and what they share by each measure.

    The sizes count copies, too: frames that the sources of a set hold and that were left out because a structure of the
    other set was there already.
    """

    first: str
    second: str
    first_size: int
    second_size: int
    shared: tuple[Shared, ...]
    first_copies: int = 0
    second_copies: int = 0

    @property
    def share(self) -> float:
        """The largest share of the second set, by any measure, whose likes are in the first."""
        return max((each.second / self.second_size for each in self.shared), default=0.0) if self.second_size else 0.0


@dataclass(frozen=True)
class LeakageReport:
    """Overlaps of two sets, or of the parts of one subset; without counts structures that have no fingerprint."""

    overlaps: tuple[Overlap, ...]
    without: int

    @property
    def share(self) -> float:
        """The largest share of a held-out set whose likes are in another, by any measure."""
        return max(overlap.share for overlap in self.overlaps)

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        overlaps = [{**asdict(overlap), "share": overlap.share} for overlap in self.overlaps]
        return {"share": self.share, "without_fingerprint": self.without, "overlaps": overlaps}


@dataclass(frozen=True, eq=False)
class _Keys:
    """Structures of a set with what they are compared by."""

    ids: list[int]
    sources: list[str]
    by: dict[str, list[str]]
    copies: int = 0


def leakage(
    db: Database,
    first: str,
    second: str | None = None,
    *,
    measures: Sequence[str] = MEASURES,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LeakageReport:
    """What two subsets or filters share, or the parts of one frozen subset when there is no second.

    Fingerprints that are missing are worked out and stored. Raises ConfigError for an unknown measure, NotFoundError
    for a subset that does not exist, QueryError for a filter that cannot be used or matches nothing.
    """
    for measure in measures:
        if measure not in MEASURES:
            raise ConfigError(f"measure {measure!r} is unknown.{did_you_mean(measure, MEASURES)} Known: {MEASURES}")
    sets = _parts(db, first) if second is None else {text: _members(db, text) for text in (first, second)}
    if len(sets) < 2:
        raise QueryError(f"{first!r} has one part only; nothing can leak. Give a second subset or filter")
    if "fingerprint" in measures:
        everything = np.unique(np.concatenate(list(sets.values())))
        fingerprint(db, everything, workers=workers, progress=progress)
    keys = {name: _keys(db, ids, measures) for name, ids in sets.items()}
    if second is not None:
        one, other = keys.values()
        keys = dict(zip(keys, (_with_copies(db, one, other), _with_copies(db, other, one)), strict=True))
    overlaps = [_overlap(one, other, keys) for one, other in combinations(sets, 2)]
    prints = [found.by.get("fingerprint", ()) for found in keys.values()]
    return LeakageReport(tuple(overlaps), sum(values.count("") for values in prints))


def _parts(db: Database, name: str) -> dict[str, Ids]:
    """Parts of a frozen subset that hold anything, the training part first."""
    subset = load(db, name)
    return {part: subset.splits[part] for part in PARTS if len(subset.splits[part])}


def _members(db: Database, text: str) -> Ids:
    ids = load(db, text).ids if text in names(db) else np.asarray(db.query(text).ids, dtype=np.int64)
    if not len(ids):
        raise QueryError(f"filter {text!r} matches no structure; see what is there with `mlipdb query all`")
    return ids


def _keys(db: Database, ids: Ids, measures: Sequence[str]) -> _Keys:
    row = StructureRow
    query = select(row.id, Source.name, Material.key, row.content_hash).order_by(row.id)
    query = query.join(Source, Source.id == row.source_id).join(Material, Material.id == row.material_id)
    found: list[Any] = []
    with db.session() as session:
        for start in range(0, len(ids), CHUNK):
            chunk = [int(number) for number in ids[start : start + CHUNK]]
            found += session.execute(query.where(row.id.in_(chunk))).all()
    by = {"material": [each[2] for each in found], "content": [each[3].hex() for each in found]}
    if "fingerprint" in measures:
        prints = stored_fingerprints(db, ids)
        by["fingerprint"] = [prints.get(each[0], "") for each in found]
    return _Keys([each[0] for each in found], [each[1] for each in found], {name: by[name] for name in measures})


def _with_copies(db: Database, keys: _Keys, other: _Keys) -> _Keys:
    """A set with the frames of its sources that were left out as copies of structures of the other set.

    They have the content and the fingerprint of these; their material is not known.
    """
    copies = _copies(db, set(other.ids).difference(keys.ids), set(keys.sources))
    places = {number: place for place, number in enumerate(other.ids)}
    by = {
        measure: values + [other.by[measure][places[number]] if measure != "material" else "" for number, _ in copies]
        for measure, values in keys.by.items()
    }
    ids, sources = [number for number, _ in copies], [source for _, source in copies]
    return _Keys(keys.ids + ids, keys.sources + sources, by, len(copies))


def _copies(db: Database, structures: set[int], sources: set[str]) -> list[tuple[int, str]]:
    """The structure and the source of each frame of sources that was left out as a copy of one of the structures."""
    query = select(Duplicate.structure_id, Source.name).join(Source, Source.id == Duplicate.source_id)
    query = query.where(Source.name.in_(sources)).order_by(Duplicate.structure_id, Source.name)
    wanted, found = sorted(structures), []
    with db.session() as session:
        if session.scalar(query.with_only_columns(Duplicate.structure_id).limit(1)) is None:
            return []
        for start in range(0, len(wanted), CHUNK):
            part = query.where(Duplicate.structure_id.in_(wanted[start : start + CHUNK]))
            found += [(number, name) for number, name in session.execute(part)]
    return found


def _overlap(first: str, second: str, keys: dict[str, _Keys]) -> Overlap:
    one, other = keys[first], keys[second]
    shared = tuple(_shared(measure, one, other) for measure in one.by)
    return Overlap(first, second, len(one.ids), len(other.ids), shared, one.copies, other.copies)


def _shared(measure: str, one: _Keys, other: _Keys) -> Shared:
    common = (set(one.by[measure]) & set(other.by[measure])) - {""}
    sources: dict[str, set[str]] = {key: set() for key in common}
    examples: dict[str, int] = {}
    count = 0
    for number, source, key in zip(one.ids, one.sources, one.by[measure], strict=True):
        if key in common:
            count += 1
            sources[key].add(source)
            examples.setdefault(key, number)
    held = [
        (number, source, key)
        for number, source, key in zip(other.ids, other.sources, other.by[measure], strict=True)
        if key in common
    ]
    first_of = {key: number for number, _, key in reversed(held)}
    shown = [{"key": key, "first": examples[key], "second": first_of[key]} for key in sorted(common)[:EXAMPLES]]
    foreign = sum(source not in sources[key] for _, source, key in held)
    return Shared(measure, len(common), count, len(held), foreign, tuple(shown))
