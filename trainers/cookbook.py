"""Where recipes are found: those that ship with the package, and files of the user."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.trainers.archive import replace_text
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.recipe_check import check_recipe
from mlipdb.trainers.settings import build, merged, to_mapping, to_toml, with_setting

FOLDER = resources.files("mlipdb.trainers") / "recipes"
MODEL_NAME = "model.name"


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package, without their variants."""
    return sorted(item.name.removesuffix(".toml") for item in FOLDER.iterdir() if item.name.endswith(".toml"))


def variant_names(name: str) -> list[str]:
    """NAME/STUDENT and NAME/STUDENT/SUBSET for each that a shipped recipe has; empty for one without variants."""
    folder = _parsed(FOLDER / f"{name}.toml").get("layers")
    if folder is None:
        return []
    students, subsets = _layer(folder, "students"), _layer(folder, "subsets")
    pairs = [(student, subset) for student in students for subset in subsets if student in subsets[subset]]
    return [f"{name}/{student}" for student in students] + [f"{name}/{one}/{other}" for one, other in pairs]


def describe(name: str) -> str:
    """What a shipped recipe is for: the comment at the head of its file."""
    lines = (FOLDER / f"{name.partition('/')[0]}.toml").read_text(encoding="utf-8").splitlines()
    head = lines[: next(place for place, line in enumerate(lines) if not line.startswith("#"))]
    return " ".join(line.removeprefix("#").strip() for line in head)


def load_recipe(name: str, *, settings: Sequence[str] = (), base: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of a name or a .toml file, with `key=value` settings applied and everything checked.

    With base, a recipe that was resolved before (of a run that goes on), the name is not read. Raises ConfigError.
    """
    # Settings go over the whole recipe, defaults included: --set loss.stress_mae=0 must not drop the other losses.
    mapping = to_mapping(build(Recipe, base if base is not None else _read(name)))
    # The model's name comes first, since another model has other options.
    for setting in sorted(settings, key=lambda text: text.partition("=")[0].strip() != MODEL_NAME):
        before = mapping["model"].get("name")
        mapping = with_setting(mapping, setting)
        if setting.partition("=")[0].strip() == MODEL_NAME and mapping["model"]["name"] != before:
            mapping["model"] = {"name": mapping["model"]["name"]}
    recipe = build(Recipe, mapping)
    check_recipe(recipe)
    return recipe


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write every setting, defaults included, as TOML; the file is there whole or not at all."""
    replace_text(path, recipe_text(recipe))


def recipe_text(recipe: Recipe) -> str:
    """Every setting, defaults included, as TOML."""
    return to_toml(to_mapping(recipe))


def _read(name: str, *, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a shipped recipe or of a file, over those of the recipe that the file extends."""
    path = Path(name)
    if path.suffix != ".toml":
        return _shipped(name)
    if not path.is_file():
        raise ConfigError(f"recipe file {path} does not exist; shipped recipes: {', '.join(recipe_names())}")
    if path.resolve() in seen:
        raise ConfigError(f"recipe {path} extends itself; remove one of the lines `extends`")
    mapping = _parsed(path)
    extended = mapping.pop("extends", None)
    if extended is None:
        return mapping
    base = path.parent / extended if str(extended).endswith(".toml") else extended
    found = _read(str(base), seen=(*seen, path.resolve()))
    if mapping.get("model", {}).get("name", _model_name(found)) != _model_name(found):
        found.pop("model", None)  # another model has other options
    return merged(found, mapping)


def _model_name(mapping: Mapping[str, Any]) -> str:
    return str(mapping.get("model", {}).get("name", "nequix"))


def _shipped(name: str) -> dict[str, Any]:
    """A recipe that ships: its own settings, over the layers of the variant that the name chooses."""
    head, *chosen = name.split("/")
    names = recipe_names()
    if head not in names:
        raise ConfigError(
            f"recipe {name!r} is unknown.{did_you_mean(head, names)} Shipped: {', '.join(names)}; or give a .toml file"
        )
    mapping = _parsed(FOLDER / f"{head}.toml")
    folder = mapping.pop("layers", None)
    if folder is None and not chosen:
        return mapping
    variants = variant_names(head)
    if chosen and name not in variants:
        known = ", ".join(variants) or "none"
        raise ConfigError(f"recipe {head!r} has no variant {name!r}.{did_you_mean(name, variants)} Variants: {known}")
    return merged(_layers(str(folder), *chosen), mapping)


def _layers(folder: str, student: str | None = None, subset: str | None = None) -> dict[str, Any]:
    """What all share, then what a student has, then what a subset has, for all students and for this one."""
    common = _layer(folder, "common")
    student = student or common["student"]
    found = merged(
        {key: value for key, value in common.items() if key != "student"}, _layer(folder, "students")[student]
    )
    if subset is not None:
        tables = _layer(folder, "subsets")[subset]
        found = merged(merged(found, tables.get("all", {})), tables[student])
    return found


def _layer(folder: str, name: str) -> dict[str, Any]:
    return _parsed(FOLDER / folder / f"{name}.toml")


def _parsed(path: Path | Traversable) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"recipe {path}: {error}") from error
