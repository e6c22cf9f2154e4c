"""What a loss has beside its weight, such as delta of a Huber loss."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mlipdb import registry
from mlipdb.errors import ConfigError, did_you_mean

Settings = Mapping[str, Mapping[str, float]]  # by the name of a loss, then by that of the setting


def make_loss(name: str, settings: Mapping[str, float]) -> Any:
    """The loss of an entry point with its own settings. Raises ConfigError for one that it does not have."""
    kind = registry.load("mlipdb.losses", name)
    known = [item.name for item in dataclasses.fields(kind)]
    for key in settings:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"loss {name!r} has no setting {key!r}; {has}.{did_you_mean(key, known)}")
    return kind(**settings)
