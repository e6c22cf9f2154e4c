"""What configurations of models share: reading, and checks of what all have."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from mlipdb.errors import ConfigError, did_you_mean

Factors = TypeVar("Factors")
DEFAULT, PAPER, FIT = "default", "paper", "fit"  # words for scale factors
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


def check_settings(config: Any, *, lowest: Mapping[str, int]) -> None:
    """Raise ConfigError unless elements ascend with an e0 each, lengths and scales are positive, sizes large enough."""
    numbers = list(config.atomic_numbers)
    if not numbers or numbers != sorted(set(numbers)) or not 0 < numbers[0] <= numbers[-1] < 119:
        raise ConfigError(f"atomic_numbers must ascend within 1 to 118, each once; got {numbers}")
    if len(config.e0) != len(numbers):
        raise ConfigError(f"e0 has {len(config.e0)} values for {len(numbers)} elements; give one each")
    for name in ("cutoff", "scale"):
        if not getattr(config, name) > 0:
            raise ConfigError(f"{name} must be above 0; got {getattr(config, name)}")
    for name, least in lowest.items():
        if getattr(config, name) < least:
            raise ConfigError(f"{name} must be {least} or more; got {getattr(config, name)}")


def factors_or_fit(given: object, config: Any, *, sizes: Mapping[str, int], published: Factors) -> Factors | str:
    """The paper's scale factors, or FIT, by what a setting says; sizes are those that the published were fitted for.

    Raises ConfigError for another word, and for the paper's factors at other sizes.
    """
    changed = [f"{name} = {getattr(config, name)}" for name, size in sizes.items() if getattr(config, name) != size]
    if given == FIT or (given == DEFAULT and changed):
        return FIT
    if given not in (DEFAULT, PAPER):
        raise ConfigError(
            f"scale_factors is {given!r}; it must be 'paper', 'fit' or a table of numbers."
            f"{did_you_mean(str(given), (PAPER, FIT))}"
        )
    if changed:
        raise ConfigError(
            f"the paper's scale factors are not right for {', '.join(changed)}; set scale_factors to 'fit'"
        )
    return published
