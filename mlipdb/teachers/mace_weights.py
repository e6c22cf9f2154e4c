"""The MACE weights that are known by name, where their file is, and the reading of a .model file."""

import hashlib
import importlib
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from mlipdb.download import fetch
from mlipdb.errors import LabelError, MissingExtraError, did_you_mean
from mlipdb.labelling.teacher import TeacherOptions


@dataclass(frozen=True)
class Published:
    """One published file: the table of mace-torch that has its URL, its name there, and what it was trained on."""

    table: str
    key: str
    functional: str | None


def _mp(key: str, functional: str | None = "PBE+U") -> Published:
    return Published("mace_mp_urls", key, functional)


def _off(key: str) -> Published:
    return Published("mace_off_urls", key, "wB97M-D3(BJ)")


MATERIALS = (
    "small", "medium", "large", "small-0b", "medium-0b", "small-0b2", "medium-0b2", "large-0b2", "medium-0b3",
    "medium-mpa-0", "small-omat-0", "medium-omat-0",
)  # fmt: skip
PUBLISHED = {
    **{f"mace-mp-{key}": _mp(key) for key in MATERIALS},
    "mace-matpes-pbe-0": _mp("mace-matpes-pbe-0", "PBE"),
    "mace-matpes-r2scan-0": _mp("mace-matpes-r2scan-0", "r2SCAN"),
    "mace-mh-0": _mp("mh-0", None),  # several heads, each with its own functional
    "mace-mh-1": _mp("mh-1", None),
    **{f"mace-off-{key}": _off(key) for key in ("small", "medium", "large")},
}
DEFAULTS = {"mace-mp": "mace-mp-medium-mpa-0", "mace-off": "mace-off-medium"}  # those of the package
ANY = "mace"  # a file of the user's own


def package(module: str) -> ModuleType:
    """A module of mace-torch, whose import is full of torch's deprecations.

    mace is imported before e3nn, whose own import needs a setting of torch that mace makes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("mace")
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"MACE teachers need the package {error.name!r}, which is not installed. Run `pip install 'mlipdb[mace]'`"
        ) from error


def resolve(name: str) -> str:
    """The full name of a teacher: ``mace-mp`` alone is what the package takes by default."""
    return DEFAULTS.get(name, name)


def weights_file(name: str, options: TeacherOptions) -> Path:
    """The file that --weights gives, else that of a published name: the package's own copy, or fetched into the cache.

    Raises LabelError for a name without a file, and before anything is fetched when the file would not be trusted.
    """
    if options.weights is None and name not in PUBLISHED:
        names = ", ".join(PUBLISHED)
        raise LabelError(
            f"teacher {name!r} needs --weights FILE.model.{did_you_mean(name, PUBLISHED)} Known by name: {names}"
        )
    if options.weights is not None and not options.weights.is_file():
        raise LabelError(f"no weights at {options.weights}; give a .model file with --weights")
    if not options.trust_weights:
        raise LabelError(
            f"{options.weights or name} is a pickled model: loading it runs whatever code the file holds, as MACE has "
            "no other format. If you trust where it comes from, repeat the command with --trust-weights"
        )
    return options.weights or _published_file(name, options)


def read_model(path: Path, device: torch.device) -> tuple[Any, str]:
    """The model of a .model file and the sha256 of the bytes that were loaded. Runs code from the file.

    Raises LabelError for a file that is none, or that holds something else than a MACE model of energies.
    """
    modules = package("mace.modules")
    data = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torch.load(io.BytesIO(data), map_location=device, weights_only=False)
    except Exception as error:  # unpickling raises what it likes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LabelError(f"{path} cannot be read as a MACE model ({reason}); is it a whole .model file?") from error
    if type(model) not in (modules.MACE, modules.ScaleShiftMACE):
        raise LabelError(
            f"{path} holds a {type(model).__name__}, which is no MACE model of energies; give the .model file that "
            "MACE's training writes at its end, not a checkpoint, a compiled model or one of dipoles or charges"
        )
    if hasattr(model, "joint_embedding"):
        asked = ", ".join(model.embedding_specs)
        raise LabelError(f"{path} needs {asked} of each structure beside its atoms; mlipdb does not pass them on yet")
    return model, hashlib.sha256(data).hexdigest()


def _published_file(name: str, options: TeacherOptions) -> Path:
    published = PUBLISHED[name]
    table: dict[str, str] = getattr(package("mace.calculators.foundations_models"), published.table)
    if published.key not in table:
        version = package("mace").__version__
        raise LabelError(
            f"mace-torch {version} does not know {published.key!r}; update it, or give the file with --weights. "
            f"It knows {', '.join(table)}"
        )
    url = table[published.key]
    return _package_copy(url) or fetch(url, cache=options.cache, offline=options.offline)


def _package_copy(url: str) -> Path | None:
    """Where the package itself has put the file, in either of the two ways in which it names its copies."""
    folder = Path(str(package("mace.tools.utils").get_cache_dir()))
    name = os.path.basename(url)  # noqa: PTH119 - of a URL
    plain = "".join(letter for letter in name if letter.isalnum() or letter == "_")
    return next((path for path in (folder / plain, folder / name) if path.is_file()), None)
