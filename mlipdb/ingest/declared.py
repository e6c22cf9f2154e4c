"""Keys and units that a user declares for a format that fixes its own."""

from collections.abc import Mapping

from mlipdb.errors import ConfigError


def refuse_keys(keys: Mapping[str, str], format_name: str) -> None:
    """ConfigError for keys that are declared for a format that fixes them."""
    if keys:
        name, key = next(iter(keys.items()))
        raise ConfigError(f"--key {name}={key}: the keys of {format_name} are fixed; leave the option out")


def refuse_units(units: Mapping[str, str], format_name: str) -> None:
    """ConfigError for units that are declared for a format that fixes them."""
    if units:
        name, unit = next(iter(units.items()))
        raise ConfigError(f"--unit {name}={unit}: the units of {format_name} are fixed; leave the option out")
