"""What a recipe must be beyond the types of its settings."""

import re
from collections.abc import Sequence
from itertools import pairwise

from mlipdb import registry
from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.trainers.loss_settings import make_loss
from mlipdb.trainers.recipe import FinetuneRecipe, Recipe


def check_recipe(recipe: Recipe) -> None:
    """Raise ConfigError that names the first key that cannot be as it is."""
    _check_ranges(recipe)
    for table, weights in (("loss", recipe.loss), ("distillation.loss", recipe.distillation.loss)):
        for loss, weight in weights.items():
            registry.check("mlipdb.losses", loss)
            _require(weight >= 0, f"{table}.{loss}", weight, "must be 0 or more")
    if not any(recipe.loss.values()):
        raise ConfigError("every weight in the recipe's [loss] is 0; give one, such as --set loss.forces_l2=20")
    if recipe.optimizer.amsgrad and recipe.optimizer.name != "adamw":
        raise ConfigError(
            f"recipe key 'optimizer.amsgrad' goes with adamw, not with {recipe.optimizer.name}; "
            "set optimizer.name=adamw or optimizer.amsgrad=false"
        )
    _check_finetune(recipe.finetune)
    for loss, settings in recipe.loss_settings.items():
        _check_weighed(recipe, loss, key=f"loss_settings.{loss}")
        make_loss(loss, settings)
    for loss, points in recipe.loss_schedule.items():
        _check_schedule(recipe, loss, points)


def _check_ranges(recipe: Recipe) -> None:
    optimizer, distillation = recipe.optimizer, recipe.distillation
    positive = {
        "epochs": recipe.epochs,
        "validate_every": recipe.validate_every,
        "batch.graphs": recipe.batch.graphs,
        "data.threads": recipe.data.threads,
        "optimizer.learning_rate": optimizer.learning_rate,
        "optimizer.clip_norm": optimizer.clip_norm,
        "optimizer.epsilon": optimizer.epsilon,
        "optimizer.plateau_factor": optimizer.plateau_factor,
    }
    for key, value in positive.items():
        _require(value > 0, key, value, "must be above 0")
    not_negative = {
        "optimizer.plateau_patience": optimizer.plateau_patience,
        "optimizer.weight_decay": optimizer.weight_decay,
        "distillation.rows_per_structure": distillation.rows_per_structure,
        "distillation.hessian_halving": distillation.hessian_halving,
    }
    for key, value in not_negative.items():
        _require(value >= 0, key, value, "must be 0 or more")
    _require(optimizer.plateau_factor < 1, "optimizer.plateau_factor", optimizer.plateau_factor, "must be below 1")
    _require(0 <= optimizer.ema_decay < 1, "optimizer.ema_decay", optimizer.ema_decay, "must be 0 or more and below 1")


def _check_finetune(recipe: FinetuneRecipe) -> None:
    not_negative = {
        "lora_rank": recipe.lora_rank,
        "replay_weight": recipe.replay_weight,
        "replay_bound": recipe.replay_bound,
        "replay_allowance": recipe.replay_allowance,
        "replay_energy_allowance": recipe.replay_energy_allowance,
        "patience": recipe.patience,
    }
    for key, value in not_negative.items():
        _require(value >= 0, f"finetune.{key}", value, "must be 0 or more")
    _require(recipe.lora_alpha > 0, "finetune.lora_alpha", recipe.lora_alpha, "must be above 0")
    _require(bool(recipe.learns), "finetune.learns", list(recipe.learns), 'must name arrays, such as ["*"] for all')
    plain = bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", recipe.head))
    _require(plain, "finetune.head", repr(recipe.head), "must be of letters, digits, dots, - and _")


def _check_weighed(recipe: Recipe, loss: str, *, key: str) -> None:
    names = (*recipe.loss.items(), *recipe.distillation.loss.items())
    weighed = sorted({name for name, weight in names if weight})
    if loss not in weighed:
        raise ConfigError(
            f"recipe key {key!r} is of a loss without a weight.{did_you_mean(loss, weighed)} With one: "
            f"{', '.join(weighed)}"
        )


def _check_schedule(recipe: Recipe, loss: str, points: Sequence[Sequence[float]]) -> None:
    key = f"loss_schedule.{loss}"
    _check_weighed(recipe, loss, key=key)
    right = all(len(point) == 2 and point[1] >= 0 for point in points)
    ascending = right and all(first[0] <= second[0] for first, second in pairwise(points))
    words = "must be points [epoch, factor], epochs ascending and factors not below 0, such as [[0, 1.0], [50, 0.1]]"
    _require(bool(points) and ascending, key, [list(point) for point in points], words)


def _require(holds: bool, key: str, value: object, words: str) -> None:
    if not holds:
        raise ConfigError(f"recipe key {key!r} is {value}; it {words}")
