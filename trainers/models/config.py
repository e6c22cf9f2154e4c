"""A model's configuration read from JSON values."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from mlipdb.errors import ConfigError, did_you_mean

REQUIRED = ("atomic_numbers", "e0")  # of every model


def read_settings(
    values: Mapping[str, Any], config: type[Any], *, model: str, left_out: Collection[str] = ()
) -> dict[str, Any]:
    """Arguments for a configuration's dataclass, lists as tuples; left_out are fields that no file sets.

    Raises ConfigError for a setting that is unknown or missing.
    """
    known = {item.name for item in dataclasses.fields(config)} - set(left_out)
    for name in values:
        if name not in known:
            raise ConfigError(f"{model} has no setting {name!r}.{did_you_mean(name, known)}")
    for name in REQUIRED:
        if name not in values:
            raise ConfigError(f"{model} needs the setting {name!r}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
