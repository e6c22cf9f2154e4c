"""Where the probes come from: samples of two subsets that the run has not learnt, their elements and cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from sqlalchemy import select

from mlipdb.catalog import StructureElement
from mlipdb.database import Database
from mlipdb.errors import ConfigError, TrainError
from mlipdb.methods import find_method
from mlipdb.structures import SYMBOLS, Structure
from mlipdb.subsets import subset as subsets
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.trainers.forgetting.errors import Labelled
from mlipdb.trainers.forgetting.measure import Probes
from mlipdb.trainers.forgetting.settings import Extent
from mlipdb.trainers.models.base import AbstractModel

PARTS = ("test", "validation", "train")  # the first that holds something
MOVING_ATOMS = 16  # of the structure that dynamics starts from, about
CHUNK = 500

Ids = Int64[np.ndarray, " _"]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which subsets, and by whom their labels are; an empty method is that of each structure's source.

    learnt are the frozen subsets of the run, whose train parts say nothing of what is still known.
    """

    subset: str
    energy: str
    method_id: int | None
    foundation_subset: str
    foundation_energy: str
    foundation_method: str
    learnt: tuple[str, ...]


def find_probes(db: Database, wanted: Wanted, *, extent: Extent, before: AbstractModel, after: AbstractModel) -> Probes:
    """The probes for the foundation and the fine-tuned model.

    Structures of the foundation with an element that one of the models does not know are left out, all of them where
    a model knows few. Raises TrainError for a subset without labels, ConfigError for unknown elements.
    """
    own = subsets.resolve(db, wanted.subset)
    other = subsets.resolve(db, wanted.foundation_subset)
    learnt = _learnt(db, wanted.learnt)
    method = find_method(db, wanted.foundation_method) if wanted.foundation_method else None
    known = set(before.atomic_numbers) & set(after.atomic_numbers)
    target = _labelled(db, own, learnt=learnt, method_id=wanted.method_id, extent=extent)
    foundation = _labelled(db, other, learnt=learnt, method_id=method, extent=extent, known=known)
    return Probes(
        target=target,
        target_energy=wanted.energy,
        target_e0=_e0(after),
        foundation=foundation,
        foundation_energy=wanted.foundation_energy,
        foundation_e0=_e0(before),
        elements=_elements(db, own, extent=extent, known=known),
        cells=_cells([structure for structure, _ in target], extent=extent),
        moving=_moving([structure for structure, _ in target]) if extent.steps else None,
        steps=extent.steps,
        seed=extent.seed,
    )


def _learnt(db: Database, names: Sequence[str]) -> Ids:
    """Structures that were learnt, of the subsets that are still there."""
    known = subsets.names(db)
    parts = [subsets.load(db, name).splits["train"] for name in names if name in known]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *parts]))


def _labelled(
    db: Database,
    subset: FrozenSubset,
    *,
    learnt: Ids,
    method_id: int | None,
    extent: Extent,
    known: set[int] | None = None,
) -> list[Labelled]:
    """A sample of the first part that holds structures which were not learnt; all of them were: a sample of these.

    Of known elements alone, where they are given.
    """
    fits = subset.ids if known is None else _made_of(db, subset, known)
    fresh = [np.setdiff1d(np.intersect1d(subset.splits[part], fits), learnt, assume_unique=True) for part in PARTS]
    ids = next((each for each in fresh if len(each)), fits)
    chosen = np.random.default_rng(extent.seed).permutation(ids)[: extent.sample]
    pairs = [(structure, label) for structure, label in db.read(np.sort(chosen), method_id=method_id) if label]
    if not pairs:
        by = "of their source" if method_id is None else f"by method {method_id}"
        raise TrainError(
            f"none of {len(chosen)} structures of {subset.name!r} has a label {by}; name another --foundation-subset "
            "or --subset, or label them"
        )
    return pairs


def _made_of(db: Database, subset: FrozenSubset, known: set[int]) -> Ids:
    """Structures of the subset without other elements. Raises TrainError where there are none."""
    row = StructureElement
    query = select(row.structure_id).where(row.atomic_number.not_in(sorted(known)))
    others: set[int] = set()
    with db.session() as session:
        for start in range(0, len(subset.ids), CHUNK):
            some = subset.ids[start : start + CHUNK].tolist()
            others |= set(session.scalars(query.where(row.structure_id.in_(some))))
    ids = np.setdiff1d(subset.ids, np.array(sorted(others), np.int64), assume_unique=True)
    if not len(ids):
        raise TrainError(
            f"no structure of {subset.name!r} is of elements that both models know; name another --foundation-subset"
        )
    return ids


def _elements(db: Database, subset: FrozenSubset, *, extent: Extent, known: set[int]) -> tuple[int, ...]:
    """Those asked for, else those of the train part; all must be known to both models."""
    found = set(extent.elements) or _held(db, subset.splits["train"])
    if unknown := sorted(found - known):
        named = " ".join(SYMBOLS[number] for number in unknown)
        raise ConfigError(f"{named}: not an element of both models; leave it out with --elements, or choose another")
    return tuple(sorted(found))


def _held(db: Database, ids: Ids) -> set[int]:
    row, found = StructureElement, set[int]()
    with db.session() as session:
        for start in range(0, len(ids), CHUNK):
            some = ids[start : start + CHUNK].tolist()
            found |= set(session.scalars(select(row.atomic_number).where(row.structure_id.in_(some)).distinct()))
    return found


def _cells(structures: Sequence[Structure], *, extent: Extent) -> tuple[Structure, ...]:
    """The smallest ones of several atoms or a cell, different compositions first; a larger one if need be."""
    several = sorted((each for each in structures if len(each) > 1 or all(each.pbc)), key=_size)
    small = [each for each in several if len(each) <= extent.cell_atoms] or several[:1]
    firsts = {tuple(each.composition.items()): each for each in reversed(small)}
    distinct = sorted(firsts.values(), key=_size)
    taken = {each.id for each in distinct}
    return tuple([*distinct, *(each for each in small if each.id not in taken)][: extent.cells])


def _size(structure: Structure) -> tuple[int, int]:
    return len(structure), structure.id or 0


def _e0(model: AbstractModel) -> dict[int, float]:
    return dict(zip(model.atomic_numbers, model.e0.tolist(), strict=True))


def _moving(structures: Sequence[Structure]) -> Structure | None:
    """The one whose size is nearest to MOVING_ATOMS, None where all are single atoms."""
    several = [each for each in structures if len(each) > 1]
    return min(several, key=lambda each: (abs(len(each) - MOVING_ATOMS), each.id or 0), default=None)
