"""Picking a replay set: which structures, frozen as a subset of exactly the size that was asked for."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from sqlalchemy import select

from mlipdb.catalog import Disagreement, StructureDisagreement
from mlipdb.database import Database
from mlipdb.errors import ConfigError, NotFoundError, QueryError, did_you_mean
from mlipdb.subsets.subset import FrozenSubset, freeze_chosen
from mlipdb.trainers.batching.records import RecordSource
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.replay.candidates import candidates, described
from mlipdb.trainers.replay.descriptors import descriptors
from mlipdb.trainers.replay.farthest import farthest

HOW = ("random", "farthest", "disagreement")

Ids = Int64[np.ndarray, " _"]


@dataclass(frozen=True, kw_only=True)
class ReplayWish:
    """Which replay set is wanted.

    source is a frozen subset, whose train part is picked from, or a filter; size counts structures, validation
    included, and None is all that fit. how is random, farthest, disagreement, or disagreement:NAME where several are
    stored; elements is any, within, exactly or containing, against those of the fine-tuning.
    """

    source: str
    size: int | None
    how: str = "random"
    elements: str = "any"
    seed: int = 0


def pick(
    db: Database,
    wish: ReplayWish,
    *,
    target_elements: Collection[int],
    model: AbstractModel | None,
    name: str,
    held_out: Ids | None = None,
) -> FrozenSubset:
    """Freeze the replay set under a name: its train part to learn, whole materials of a tenth held back to validate.

    model is the foundation: structures that it does not know the elements of are left out, and farthest needs it.
    held_out are structures that must not be learnt, in ascending order of their ids. The same wish on the same data
    gives the same set. Raises ConfigError, which says how many structures there are where they are fewer than wanted;
    nothing is filled up with others.
    """
    way, argument = parse_how(wish.how)
    known = () if model is None else model.atomic_numbers
    ids = candidates(db, wish.source, elements=wish.elements, target=target_elements, known=known)
    if held_out is not None:
        ids = np.setdiff1d(ids, held_out, assume_unique=True)
    fitting = described(wish.elements, target_elements)
    what = "that the foundation knows" + (" and whose materials are not held out" if held_out is not None else "")
    _check_size(wish, len(ids), fitting, what=what)
    if wish.size is None:
        chosen = ids
    elif way == "random":
        chosen = np.random.default_rng(wish.seed).choice(ids, wish.size, replace=False)
    elif way == "farthest":
        chosen = _farthest(db, wish, ids, model=model)
    else:
        chosen = _most_disputed(db, wish, ids, name=argument)
    which = f"{'all' if wish.size is None else wish.size} of {wish.source}{fitting and f', {fitting}'}"
    about = f"replay: {which}; {wish.how}, seed {wish.seed}"
    return freeze_chosen(db, name, chosen.astype(np.int64), about=about, seed=wish.seed)


def parse_how(how: str) -> tuple[str, str]:
    """A way of picking and, of disagreement, which one. Raises ConfigError with a suggestion."""
    way, _, argument = how.partition(":")
    if way not in HOW or (argument and way != "disagreement"):
        raise ConfigError(f"replay pick {how!r} is unknown.{did_you_mean(way, HOW)} Known: {', '.join(HOW)}")
    return way, argument


def _check_size(wish: ReplayWish, count: int, fitting: str, *, what: str) -> None:
    if wish.size is not None and wish.size < 1:
        raise ConfigError(f"a replay set of {wish.size} structures is none; give --replay-size 1 or more")
    if not count:
        raise QueryError(
            f"{wish.source!r} has no structure {fitting or what}; widen --replay, or take other --replay-elements"
        )
    if wish.size is not None and count < wish.size:
        raise ConfigError(
            f"{wish.source!r} has {count} structures {fitting or what}, fewer than the {wish.size} to replay; give "
            f"--replay-size {count}, widen --replay, or take other --replay-elements"
        )


def _farthest(db: Database, wish: ReplayWish, ids: Ids, *, model: AbstractModel | None) -> Ids:
    if model is None:
        raise ConfigError("picking farthest structures needs the foundation, whose features say how alike they are")
    source = RecordSource(db, cutoff=model.cutoff, needs=model.graph_needs, budget=0)
    chosen: Ids = ids[farthest(descriptors(model, source.stream(ids)), count=wish.size or 0, seed=wish.seed)]
    return chosen


def _most_disputed(db: Database, wish: ReplayWish, ids: Ids, *, name: str) -> Ids:
    """Those with the largest stored disagreement of forces, then the lowest id; those without one do not count."""
    spread = disagreements(db, name)
    known = [int(identity) for identity in ids if int(identity) in spread]
    _check_size(wish, len(known), "with that disagreement of forces", what="")
    return np.array(sorted(known, key=lambda identity: (-spread[identity], identity))[: wish.size], dtype=np.int64)


def disagreements(db: Database, name: str) -> dict[int, float]:
    """Stored disagreement of forces by structure, of that name or, for none, the only one. Raises as pick does."""
    row = StructureDisagreement
    with db.session() as session:
        stored = {str(each.name): each.id for each in session.execute(select(Disagreement.name, Disagreement.id))}
        number = stored[_disagreement(name, list(stored))]
        query = select(row.structure_id, row.forces).where(row.disagreement_id == number, row.forces.is_not(None))
        return {
            identity: float(forces or 0.0) for identity, forces in session.execute(query.order_by(row.structure_id))
        }


def _disagreement(name: str, stored: list[str]) -> str:
    """The one that is named, or the only one."""
    if not stored:
        raise NotFoundError("no disagreement of methods is stored; make one: mlipdb labels disagree METHOD METHOD")
    if not name and len(stored) > 1:
        raise ConfigError(f"several disagreements are stored; say which: disagreement:NAME, of {', '.join(stored)}")
    if name and name not in stored:
        raise NotFoundError(
            f"there is no disagreement {name!r}.{did_you_mean(name, stored)} Known: {', '.join(stored)}"
        )
    return name or stored[0]
