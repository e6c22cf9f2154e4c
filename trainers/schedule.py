"""The learning rate and the weights of losses along a run.

What depends on how the run goes is worked out from the errors of the epochs behind, which are in every checkpoint, so
that a run that goes on needs to remember nothing else.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mlipdb.trainers.recipe import OptimizerRecipe

BETTER = 1.0 - 1e-4  # an error counts as lower when it is below this times the lowest so far, as PyTorch has it
HALVED = 0.5
Points = Sequence[Sequence[float]]


def learning_rate(
    recipe: OptimizerRecipe, *, epoch: int, step: int, steps: int, epochs: int, errors: Sequence[float] = ()
) -> float:
    """The rate of step number `step` of the `steps` that this epoch really has.

    Linear from warmup_start times the peak over warmup_epochs. Then a cosine that reaches final_learning_rate at the
    end of the last epoch: progress is counted in epochs, each divided by its own number of batches, since a constant
    guess of batches per epoch makes the cosine end early under dynamic batching. Or a plateau's rate, from the force
    errors of the validations behind.
    """
    progress = epoch + step / steps
    peak, warmup = recipe.learning_rate, min(recipe.warmup_epochs, float(epochs))
    if progress < warmup:
        return peak * (recipe.warmup_start + (1.0 - recipe.warmup_start) * progress / warmup)
    if recipe.schedule == "plateau":
        return _plateau_rate(recipe, errors)
    fraction = (progress - warmup) / max(epochs - warmup, 1e-12)
    floor = min(recipe.final_learning_rate, peak)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))


def _plateau_rate(recipe: OptimizerRecipe, errors: Sequence[float]) -> float:
    """The rate after these errors: reduced whenever more than plateau_patience in a row were not the lowest."""
    rate, lowest, waited = recipe.learning_rate, math.inf, 0
    floor = min(recipe.final_learning_rate, rate)
    for error in errors:
        if error < lowest * BETTER:
            lowest, waited = error, 0
            continue
        waited += 1
        if waited > recipe.plateau_patience:
            rate, waited = max(rate * recipe.plateau_factor, floor), 0
    return rate


def force_errors(history: Sequence[Mapping[str, Any]], *, part: str) -> list[float]:
    """Force MAE of ``validation`` or ``train`` in the epochs behind, in order; those that have none are left out."""
    found = [(entry[part] or {}).get("forces_mae") for entry in history]
    return [float(error) for error in found if error is not None]


def weights_at(
    weights: Mapping[str, float], schedules: Mapping[str, Points], *, epoch: int, halved: Sequence[str] = ()
) -> dict[str, float]:
    """Weights of the loss terms in an epoch, counted from 0: each times its schedule's factor; some of them halved."""
    found = {name: weight * _factor(schedules.get(name, ()), epoch) for name, weight in weights.items()}
    return {name: weight * HALVED if name in halved else weight for name, weight in found.items()}


def _factor(points: Points, epoch: int) -> float:
    """Linear between points (epoch, factor), constant beyond them; of two points at one epoch the later one holds."""
    if not points:
        return 1.0
    if epoch < points[0][0]:
        return points[0][1]
    for (start, before), (end, after) in pairwise(points):
        if start <= epoch < end:
            return before + (after - before) * (epoch - start) / (end - start)
    return points[-1][1]


def is_near_teacher(errors: Sequence[float], *, teacher: float | None, limit: float) -> bool:
    """Whether a force MAE has once been below `limit` times the teacher's; both in one unit. Never without either."""
    return teacher is not None and limit > 0 and any(error < limit * teacher for error in errors)
