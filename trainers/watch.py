"""What ends a fine-tuning early, or slows it: it forgets too much, or learns no more.

All is worked out from the epochs behind, so that a run that goes on needs to remember nothing but its history and the
errors that it started from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mlipdb.trainers.recipe import FinetuneRecipe

History = Sequence[Mapping[str, Any]]
SLOWED = 0.5


def above_limit(recipe: FinetuneRecipe, entry: Mapping[str, Any], *, start: Mapping[str, Any] | None) -> str | None:
    """What an epoch's validation says is forgotten too much, in words; None where nothing is or nothing was measured.

    The error of each quantity on what is replayed is held against a multiple of that before the first step.
    """
    found, before = _replayed(entry), (start or {}).get("replay") or {}
    for name, (words, unit, allowance) in _bounded(recipe).items():
        error, first = found.get(name), before.get(name)
        if not recipe.replay_bound or error is None or first is None:
            continue
        limit = max(recipe.replay_bound * float(first), allowance)
        if not float(error) <= limit:
            return f"the {words} error on what is replayed, {error:.1f} {unit}, is above the limit of {limit:.1f}"
    return None


def may_be_best(recipe: FinetuneRecipe, entry: Mapping[str, Any], *, start: Mapping[str, Any] | None) -> bool:
    """Whether an epoch's model may be the one to use: with a bound only one that was measured and is within it."""
    if not recipe.replay_bound:
        return True
    return bool(_replayed(entry)) and above_limit(recipe, entry, start=start) is None


def slowing(recipe: FinetuneRecipe, history: History, *, start: Mapping[str, Any] | None) -> float:
    """What the learning rate is multiplied by: half for each validation behind that was above the limit."""
    if recipe.replay_action != "lower":
        return 1.0
    return float(SLOWED ** sum(above_limit(recipe, entry, start=start) is not None for entry in history))


def reason_to_stop(
    recipe: FinetuneRecipe, history: History, *, start: Mapping[str, Any] | None, best_epoch: int | None
) -> str | None:
    """Why no epoch follows those behind; None where one does."""
    above = above_limit(recipe, history[-1], start=start) if history else None
    if recipe.replay_action == "stop" and above is not None:
        return f"{above}; see finetune.replay_bound"
    since = [entry for entry in history if entry["epoch"] > (best_epoch or 0) and entry["validation"] is not None]
    if recipe.patience and len(since) >= recipe.patience:
        return f"{len(since)} validations in a row were not better than that of epoch {best_epoch}"
    return None


def _bounded(recipe: FinetuneRecipe) -> dict[str, tuple[str, str, float]]:
    """What is bounded: its word, unit and the error up to which it is no forgetting."""
    return {
        "forces_mae": ("force", "meV/Å", recipe.replay_allowance),
        "energy_mae": ("energy", "meV/atom", recipe.replay_energy_allowance),
    }


def _replayed(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Errors of the validation of what is replayed; empty where there was none."""
    return (entry.get("replay") or {}).get("validation") or {}
