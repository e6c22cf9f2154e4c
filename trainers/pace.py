"""How an epoch goes: its learning rate and the weights of its losses, from the recipe and the epochs behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.schedule import force_errors, is_near_teacher, learning_rate, weights_at
from mlipdb.trainers.watch import slowing

HESSIAN = "hessian_rows"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """One epoch, counted from 0. errors are the force MAEs of the validations behind; weights are of all loss terms.

    slowed multiplies the learning rate, where a fine-tuning forgets too much.
    """

    recipe: Recipe
    epoch: int
    errors: Sequence[float]
    weights: Mapping[str, float]
    halved: bool
    slowed: float = 1.0

    def rate(self, *, step: int, steps: int) -> float:
        """The learning rate of step number `step` of the epoch's `steps`."""
        recipe, epochs = self.recipe.optimizer, self.recipe.epochs
        found = learning_rate(recipe, epoch=self.epoch, step=step, steps=steps, epochs=epochs, errors=self.errors)
        return found if self.slowed == 1.0 else self.slowed * found

    def describe(self) -> dict[str, Any]:
        """The rate at the epoch's start and the weights, as the run keeps them."""
        return {"learning_rate": self.rate(step=0, steps=1), "weights": dict(self.weights)}

    def changes(self, after: "Pace") -> list[str]:
        """Lines that say what the epoch brought about: a halved weight, a rate reduced on a plateau."""
        lines = []
        if after.halved and not self.halved:
            lines.append(f"force error near the teacher's: weight of {HESSIAN} halved to {after.weights[HESSIAN]:g}")
        before, now = self.rate(step=0, steps=1), after.rate(step=0, steps=1)
        if self.recipe.optimizer.schedule == "plateau" and now < before:
            lines.append(f"force error on a plateau: learning rate {before:.3g} -> {now:.3g}")
        if after.slowed < self.slowed:
            lines.append(f"error on what is replayed above its limit: learning rate times {after.slowed:g}")
        return lines


def make_pace(
    recipe: Recipe,
    weights: Mapping[str, float],
    *,
    history: Sequence[Mapping[str, Any]],
    epoch: int,
    validates: bool,
    teacher: float | None,
    start: Mapping[str, Any] | None = None,
) -> Pace:
    """The pace of an epoch after those in history; a run that validates nothing watches its training errors.

    teacher is the teacher's force MAE in meV/Å, as in history; None where it is not known. start holds the errors of
    the foundation, where the run has one.
    """
    errors = force_errors(history, part="validation" if validates else "train")
    near = is_near_teacher(errors, teacher=teacher, limit=recipe.distillation.hessian_halving)
    halved = near and bool(weights.get(HESSIAN))
    found = weights_at(weights, recipe.loss_schedule, epoch=epoch, halved=(HESSIAN,) if halved else ())
    slowed = slowing(recipe.finetune, history, start=start)
    return Pace(recipe=recipe, epoch=epoch, errors=errors, weights=found, halved=halved, slowed=slowed)
