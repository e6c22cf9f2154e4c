"""Plug-ins by entry point: names are listed without importing anything, a plug-in is loaded on use."""

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from mlipdb.errors import ConfigError, MissingExtraError, did_you_mean

Entry = Any  # importlib.metadata's EntryPoint; that of importlib_metadata as soon as any package has imported that one


def names(group: str) -> tuple[str, ...]:
    """Names of the plug-ins of a group such as ``mlipdb.readers``, in alphabetical order; nothing is imported."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def check(group: str, name: str, *, also: Iterable[str] = ()) -> None:
    """Raise ConfigError unless the group has the name; also are names that the caller knows besides."""
    known = sorted({*names(group), *also})
    if name not in known:
        raise ConfigError(
            f"{_noun(group)} {name!r} is unknown.{did_you_mean(name, known)} Known: {', '.join(known) or 'none'}. "
            "A plug-in shows up once its package is installed; in a source checkout run `pip install -e .` again"
        )


def load(group: str, name: str) -> Any:
    """The object that a plug-in's entry point names.

    Raises ConfigError for an unknown name or an entry point that leads nowhere, MissingExtraError where the plug-in
    imports a package that is not installed.
    """
    check(group, name)
    entry = next(entry for entry in entry_points(group=group) if entry.name == name)
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        if error.name is not None and not _part_of(entry, error.name):
            raise MissingExtraError(
                f"{_noun(group)} {name!r} needs the package {error.name!r}, which is not installed.{_extras(entry)}"
            ) from error
        raise _stale(group, entry) from error
    except AttributeError as error:
        if error.name is not None and error.name not in entry.attr.split("."):
            raise
        raise _stale(group, entry) from error


def name_of(group: str, plugin: type) -> str:
    """The name under which a class is registered. Raises ConfigError where it is not."""
    alike = [entry for entry in entry_points(group=group) if entry.attr == plugin.__qualname__]
    found = sorted(entry.name for entry in alike if entry.load() is plugin)
    if not found:
        raise ConfigError(
            f"{plugin.__module__}:{plugin.__qualname__} is registered as no {_noun(group)}, so that what holds one "
            f"could not be read again; make it an entry point of {group}, and install its package again"
        )
    return found[0]


def _part_of(entry: Entry, module: str) -> bool:
    own = str(entry.module)
    return own == module or own.startswith(f"{module}.")


def _stale(group: str, entry: Entry) -> ConfigError:
    return ConfigError(
        f"{_noun(group)} {entry.name!r} is registered as {entry.value!r}, which does not exist: the installed metadata "
        "are stale; run `pip install -e .` in a source checkout, or install the package again"
    )


def _extras(entry: Entry) -> str:
    extras = (entry.dist.metadata.get_all("Provides-Extra") or []) if entry.dist else []
    own = entry.module.rpartition(".")[2]
    fitting = [extra for extra in extras if extra == own or entry.name.startswith(extra)]
    if entry.dist is None or not fitting:
        return " Install it and repeat the command"
    return f" Run `pip install '{entry.dist.name}[{fitting[0]}]'`"


def _noun(group: str) -> str:
    """``mlipdb.readers`` holds readers, so each is a reader."""
    plural = group.rpartition(".")[2]
    return "loss" if plural == "losses" else plural.removesuffix("s")
