"""From the name of a calculator's class to the class, its arguments and what makes it this calculator."""

import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from mlipdb.errors import ConfigError, MissingExtraError, did_you_mean

EXAMPLE = "ase:ase.calculators.emt.EMT"


def calculator_class(name: str) -> type[Any]:
    """The class of ``ase:module.Class``.

    Raises ConfigError where the name leads nowhere, MissingExtraError where its package is not installed.
    """
    module_name, _, class_name = name.partition(":")[2].rpartition(".")
    if not module_name:
        raise ConfigError(f"teacher {name!r} names no class; give ase:module.Class, such as {EXAMPLE}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"teacher {name!r} needs the module {error.name!r}, which cannot be imported: install its package, or name "
            "the folder of a file of your own in PYTHONPATH; a package of another environment needs --worker-python"
        ) from error
    found: Any = getattr(module, class_name, None)
    classes = [key for key, value in vars(module).items() if _calculates(value)]
    if not _calculates(found):
        what = "does not exist" if found is None else "is no ASE calculator"
        raise ConfigError(
            f"{module_name}.{class_name} {what}.{did_you_mean(class_name, classes)} "
            f"Calculators in {module_name}: {', '.join(classes) or 'none'}"
        )
    chosen: type[Any] = found
    return chosen


def constructor_arguments(settings: Mapping[str, str]) -> dict[str, Any]:
    """Arguments from texts: JSON where a text is JSON (numbers, true, null, lists), else the text itself."""
    return {name: _value(text) for name, text in settings.items()}


def identity(settings: Mapping[str, str]) -> dict[str, Any]:
    """The arguments as they are remembered: of one that is a file the hash, so that it may lie anywhere."""
    described: dict[str, Any] = {}
    for name, value in sorted(constructor_arguments(settings).items()):
        path = Path(value) if isinstance(value, str) and value else None
        if path is not None and path.is_file():
            described[name] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        else:
            described[name] = value
    return described


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a class comes from: its full name, and package and version that brought it."""

    path: str
    package: str
    version: str

    @classmethod
    def of(cls, kind: type[Any]) -> "Origin":
        """By the installed packages; a file of the user's own has its hash for a version."""
        top = kind.__module__.partition(".")[0]
        path = f"{kind.__module__}.{kind.__qualname__}"
        packages = _packages().get(top, ())
        if packages:
            return cls(path=path, package=packages[0], version=metadata.version(packages[0]))
        source = Path(inspect.getfile(kind)).read_bytes()
        return cls(path=path, package=top, version=f"source {hashlib.sha256(source).hexdigest()[:16]}")

    def sha256(self, arguments: Mapping[str, Any]) -> str:
        """The hash that stands for the weights: of class, package, version and arguments."""
        told = json.dumps([self.path, self.package, self.version, dict(arguments)], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


@lru_cache(maxsize=1)
def _packages() -> Mapping[str, list[str]]:
    """Which package brought each top-level module; reading all their metadata takes a second."""
    return metadata.packages_distributions()


def _calculates(found: object) -> bool:
    """Whether it is a class with the methods that ase.Atoms asks of a calculator."""
    return isinstance(found, type) and all(
        callable(getattr(found, method, None)) for method in ("get_potential_energy", "get_forces")
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
