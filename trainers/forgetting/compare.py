"""A fine-tuned model beside its foundation: the same questions to both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlipdb.database import Database
from mlipdb.errors import ConfigError
from mlipdb.trainers.checkpoint import load_checkpoint, load_model, split_head
from mlipdb.trainers.evaluate import Target, find_target
from mlipdb.trainers.forgetting.errors import Errors
from mlipdb.trainers.forgetting.measure import Measured, Probes, known_errors, measure
from mlipdb.trainers.forgetting.probes import Wanted, find_probes
from mlipdb.trainers.forgetting.settings import Extent
from mlipdb.trainers.found_model import find_model
from mlipdb.trainers.foundation_place import foundation_place
from mlipdb.trainers.graph import REPLAY
from mlipdb.trainers.models.heads import head_names, only_head
from mlipdb.trainers.run_files import best_checkpoint
from mlipdb.trainers.runs import find_run, run_names


@dataclass(frozen=True, eq=False, kw_only=True)
class Forgetting:
    """Before is the foundation, after the fine-tuned model, both asked on subset and foundation_subset.

    kept are the errors of a replaying run's other readout, that of the foundation, on foundation_subset.
    """

    target: str
    against: str
    subset: str
    foundation_subset: str
    before: Measured
    after: Measured
    kept: Errors | None = None

    def numbers(self) -> dict[str, Any]:
        """Plain numbers of both, as in Measured.numbers."""
        names = ("target", "against", "subset", "foundation_subset")
        numbers = {"before": self.before.numbers(), "after": self.after.numbers()}
        kept = None if self.kept is None else self.kept.row()
        return {**{name: getattr(self, name) for name in names}, **numbers, "kept": kept}

    def describe(self) -> dict[str, Any]:
        """The numbers and every curve."""
        curves = {
            kind: {when: [curve.describe() for curve in getattr(found, kind)] for when, found in self.both.items()}
            for kind in ("dimers", "cells")
        }
        return {**self.numbers(), "curves": curves}

    @property
    def both(self) -> dict[str, Measured]:
        """By the words before and after."""
        return {"before": self.before, "after": self.after}


def forgetting(
    db: Database,
    target: str,
    *,
    subset: str,
    foundation_subset: str | None = None,
    against: str | None = None,
    extent: Extent | None = None,
) -> Forgetting:
    """Compare a run, checkpoint or .nqx file with the foundation that it came from.

    subset is what it was fine-tuned for, foundation_subset a subset or filter of what the foundation was trained on, by
    default the run's replay set; against is the foundation, by default the run's. Of each subset a sample that no part
    of the run has learnt is asked for, where there is one. Raises ConfigError where one of the two is not known.
    """
    extent = extent or Extent()
    chosen = find_target(db, target)
    history = check_forgetting(db, target, foundation_subset=foundation_subset, against=against)
    foundation = against or history["foundation"]
    known = foundation_subset or history["replay"]
    replayed = known == history.get("replay")
    place = find_model(against, db=db) if against else foundation_place(db, str(foundation), sha256=history["sha256"])
    before = load_model(place)
    after = load_model(chosen.path)
    wanted = Wanted(
        subset=subset,
        energy=chosen.energy,
        method_id=chosen.method_id,
        foundation_subset=str(known),
        # what was replayed may have another energy than the foundation learnt from: pseudo-labels have one kind only
        foundation_energy=history["energy"] if replayed else find_target(db, str(place)).energy,
        foundation_method=str(history.get("replay_method", "")) if replayed else "",
        learnt=tuple(history.get("learnt", ())),
    )
    probes = find_probes(db, wanted, extent=extent, before=before, after=after)
    return Forgetting(
        target=target,
        against=str(foundation),
        subset=subset,
        foundation_subset=str(known),
        before=measure(before, probes),
        after=measure(after, probes),
        kept=_kept(chosen, history, probes),
    )


def check_forgetting(
    db: Database, target: str, *, foundation_subset: str | None = None, against: str | None = None
) -> dict[str, Any]:
    """What a run's row says of its fine-tuning. Raises ConfigError where foundation or its subset is not known."""
    history = _history(db, find_target(db, target))
    if not (against or history.get("foundation")):
        raise ConfigError(f"{target!r} does not say which foundation it came from; name it with --against")
    if not (foundation_subset or history.get("replay")):
        raise ConfigError(
            f"{target!r} had no replay set; say with --foundation-subset what the foundation should still know"
        )
    if against:
        find_model(against, db=db)
    return history


def _history(db: Database, target: Target) -> dict[str, Any]:
    """What a run's recipe says of its fine-tuning, and which subsets it learnt; nothing of a model from elsewhere."""
    name = split_head(target.name)[0].name
    if name not in run_names(db):
        return {}
    run = find_run(db, name)
    tuned = run.config["recipe"].get("finetune", {})
    learnt: Sequence[str | None] = (run.subset, tuned.get("replay"))
    energy = tuned.get("replay_energy") or run.config["recipe"]["data"]["energy"]
    return {**tuned, "energy": energy, "learnt": [name for name in learnt if name]}


def _kept(target: Target, history: dict[str, Any], probes: Probes) -> Errors | None:
    """Errors of the readout that replay kept for the foundation; None where there is no such."""
    replayed = history.get("replay") and history.get("replay_weight", 0.0) > 0
    if not replayed or split_head(target.path)[1] is not None:
        return None
    stored = load_checkpoint(best_checkpoint(target.path) or target.path)
    return known_errors(only_head(stored, head_names(stored)[REPLAY]), probes)
