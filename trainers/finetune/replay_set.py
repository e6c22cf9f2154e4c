"""The replay set of a fine-tuning: a frozen subset as it is, or structures picked from one."""

import hashlib
from dataclasses import dataclass

import numpy as np

from mlipdb.database import Database
from mlipdb.errors import ConfigError
from mlipdb.subsets import subset as subsets
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.prepare import Say, subset_elements
from mlipdb.trainers.replay import ReplayWish, pick
from mlipdb.trainers.replay.candidates import check_elements, of_same_materials
from mlipdb.trainers.replay.pick import disagreements, parse_how


@dataclass(frozen=True, kw_only=True)
class ReplayChoice:
    """What to replay: source is a frozen subset or a filter; of it size structures, or all where size is None.

    how (None for random) and elements are as in ReplayWish. A frozen subset of which all is replayed is taken as it is.
    """

    source: str
    size: int | None = None
    how: str | None = None
    elements: str = "any"
    seed: int = 0


def check_choice(choice: ReplayChoice) -> None:
    """Raise ConfigError for a way of picking or a choice of elements that there is not, or that would do nothing."""
    check_elements(choice.elements)
    if choice.how is None:
        return
    parse_how(choice.how)
    if choice.size is None:
        raise ConfigError(
            f"--replay-pick {choice.how} says how to pick, but not how many; give --replay-size too, or leave it out "
            "to replay all"
        )


def replay_set(
    db: Database, choice: ReplayChoice, *, target: FrozenSubset, model: AbstractModel, foundation: str, say: Say
) -> FrozenSubset:
    """The frozen replay set; the same choice on the same data gives the same one. foundation is the model's checksum.

    Picked structures are of no material that the fine-tuning is validated or tested on; of a subset taken whole it says
    how many are. Raises as pick does.
    """
    held_out = of_same_materials(db, np.concatenate([target.splits["validation"], target.splits["test"]]))
    if choice.size is None and choice.elements == "any" and choice.source in subsets.names(db):
        found = subsets.load(db, choice.source)
    else:
        wish = ReplayWish(
            source=choice.source,
            size=choice.size,
            how=choice.how or "random",
            elements=choice.elements,
            seed=choice.seed,
        )
        elements = {*subset_elements(db, target)}
        facts = (held_out.tobytes().hex(), foundation if wish.how == "farthest" else "")
        name = _name(db, wish, elements=elements, model=model, facts=facts)
        found = pick(db, wish, target_elements=elements, model=model, name=name, held_out=held_out)
    say(f"replay: {len(found.splits['train'])} structures to learn of subset {found.name}")
    if shared := len(np.intersect1d(found.splits["train"], held_out)):
        say(
            f"WARNING: {shared} structures of the replay are of materials of the validation or test part of "
            f"{target.name!r}, so its errors there are too small; narrow --replay, or pick from it with --replay-size"
        )
    return found


def _name(db: Database, wish: ReplayWish, *, elements: set[int], model: AbstractModel, facts: tuple[str, ...]) -> str:
    """A name that is the same only for the same choice from the same structures by the same measure.

    The model decides by its elements what a candidate is; facts are what else decides.
    """
    known = wish.source in subsets.names(db)
    content = subsets.load(db, wish.source).hash if known else db.query(wish.source).ids.tobytes().hex()
    way, _, argument = wish.how.partition(":")
    spread = repr(disagreements(db, argument)) if way == "disagreement" else ""
    key = repr((wish, sorted(elements), sorted(model.atomic_numbers), content, spread, facts))
    what = "all" if wish.size is None else f"{wish.size}-{way}"
    return f"replay-{what}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
