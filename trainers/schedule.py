"""The learning rate along a run."""

import math

from mlipdb.trainers.recipe import OptimizerRecipe


def learning_rate(recipe: OptimizerRecipe, *, epoch: int, step: int, steps: int, epochs: int) -> float:
    """The rate of step number `step` of the `steps` that this epoch really has.

    Linear from warmup_start times the peak over warmup_epochs, then a cosine that reaches final_learning_rate at the
    end of the last epoch. Progress is counted in epochs, each divided by its own number of batches, so that the cosine
    ends with the data: a constant guess of batches per epoch makes it end early under dynamic batching.
    """
    progress = epoch + step / steps
    peak, warmup = recipe.learning_rate, min(recipe.warmup_epochs, float(epochs))
    if progress < warmup:
        return peak * (recipe.warmup_start + (1.0 - recipe.warmup_start) * progress / warmup)
    fraction = (progress - warmup) / max(epochs - warmup, 1e-12)
    floor = min(recipe.final_learning_rate, peak)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))
