"""What ends a fine-tuning early, or slows it: it forgets too much, or learns no more.

All is worked out from the epochs behind, so that a run that goes on needs to remember nothing but its history and the
errors that it started from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mlipdb.trainers.recipe import FinetuneRecipe

History = Sequence[Mapping[str, Any]]
SLOWED = 0.5


def replay_errors(history: History) -> list[float | None]:
    """Force MAE (meV/Å) of the replay's validation in the epochs behind, None where there was none."""
    found = [((entry.get("replay") or {}).get("validation") or {}).get("forces_mae") for entry in history]
    return [None if error is None else float(error) for error in found]


def replay_limit(recipe: FinetuneRecipe, start: Mapping[str, Any] | None) -> float | None:
    """Above which force MAE (meV/Å) of the replay the run forgets too much; None for never."""
    error = ((start or {}).get("replay") or {}).get("forces_mae")
    if not recipe.replay_bound or error is None:
        return None
    return max(recipe.replay_bound * float(error), recipe.replay_allowance)


def slowing(recipe: FinetuneRecipe, history: History, *, start: Mapping[str, Any] | None) -> float:
    """What the learning rate is multiplied by: half for each validation behind that was above the limit."""
    limit = replay_limit(recipe, start)
    if limit is None or recipe.replay_action != "lower":
        return 1.0
    return float(SLOWED ** sum(error is not None and error > limit for error in replay_errors(history)))


def reason_to_stop(
    recipe: FinetuneRecipe, history: History, *, start: Mapping[str, Any] | None, best_epoch: int | None
) -> str | None:
    """Why no epoch follows those behind; None where one does."""
    limit = replay_limit(recipe, start)
    error = replay_errors(history)[-1] if history else None
    if recipe.replay_action == "stop" and limit is not None and error is not None and error > limit:
        return (
            f"the force error on what is replayed, {error:.1f} meV/Å, is above the limit of {limit:.1f}; see "
            "finetune.replay_bound"
        )
    since = [entry for entry in history if entry["epoch"] > (best_epoch or 0) and entry["validation"] is not None]
    if recipe.patience and len(since) >= recipe.patience:
        return f"{len(since)} validations in a row were not better than that of epoch {best_epoch}"
    return None
