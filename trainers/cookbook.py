"""Where recipes are found: those that ship with the package, and files of the user."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mlipdb import registry
from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.trainers.archive import replace_text
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.settings import build, to_mapping, to_toml, with_setting

FOLDER = resources.files("mlipdb.trainers") / "recipes"


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(item.name.removesuffix(".toml") for item in FOLDER.iterdir() if item.name.endswith(".toml"))


def load_recipe(name: str, *, settings: Sequence[str] = (), base: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a name or a .toml file, with `key=value` settings applied and everything checked.

    With base, a recipe that was resolved before (of a run that goes on), the name is not read. Raises ConfigError.
    """
    # Settings go over the whole recipe, defaults included: --set loss.stress_mae=0 must not drop the other losses.
    mapping = to_mapping(build(Recipe, base if base is not None else _read(name)))
    for setting in settings:
        mapping = with_setting(mapping, setting)
    recipe = build(Recipe, mapping)
    _check(recipe)
    return recipe


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write every setting, defaults included, as TOML; the file is there whole or not at all."""
    replace_text(path, to_toml(to_mapping(recipe)))


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"recipe file {path} does not exist; shipped recipes: {', '.join(recipe_names())}")
        text = path.read_text()
    elif name in recipe_names():
        text = (FOLDER / f"{name}.toml").read_text()
    else:
        known = recipe_names()
        raise ConfigError(
            f"recipe {name!r} is unknown.{did_you_mean(name, known)} Shipped: {', '.join(known)}; or give a .toml file"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"recipe {name}: {error}") from error


def _check(recipe: Recipe) -> None:
    for weights in (recipe.loss, recipe.distillation.loss):
        for loss in weights:
            registry.check("mlipdb.losses", loss)
    positive = {
        "epochs": recipe.epochs,
        "validate_every": recipe.validate_every,
        "batch.graphs": recipe.batch.graphs,
        "data.threads": recipe.data.threads,
        "optimizer.learning_rate": recipe.optimizer.learning_rate,
        "optimizer.clip_norm": recipe.optimizer.clip_norm,
    }
    for key, value in positive.items():
        if value <= 0:
            raise ConfigError(f"recipe key {key!r} is {value}; it must be above 0")
    if not any(recipe.loss.values()):
        raise ConfigError("every weight in the recipe's [loss] is 0; give one, such as --set loss.forces_l2=20")
