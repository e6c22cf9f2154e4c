"""Dataclass trees from mappings and back: unknown keys and wrong types are errors that name the key."""

import dataclasses
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin

from mlipdb.errors import ConfigError, did_you_mean

T = TypeVar("T")


def build(cls: type[T], mapping: Mapping[str, Any], *, path: str = "") -> T:
    """A dataclass from a mapping of its fields, nested ones from nested mappings; absent fields keep their default.

    Raises ConfigError for a key that is no field and for a value of another type.
    """
    hints = typing.get_type_hints(cls)
    known = [item.name for item in dataclasses.fields(cls)]  # type: ignore[arg-type]  # T is always a dataclass here
    for key in mapping:
        if key not in known:
            raise ConfigError(
                f"unknown recipe key {path + key!r}.{did_you_mean(key, known)} Known here: {', '.join(known)}"
            )
    return cls(**{key: _checked(value, hints[key], path=path + key) for key, value in mapping.items()})


def _checked(value: Any, hint: Any, *, path: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"recipe key {path!r} is a table of settings, not {value!r}")
        return build(hint, value, path=f"{path}.")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(
                f"recipe key {path!r} is {value!r}; it must be one of {', '.join(map(repr, arguments))}."
                f"{did_you_mean(str(value), map(str, arguments))}"
            )
        return value
    if origin is dict and isinstance(value, Mapping):
        return {str(name): _checked(item, arguments[1], path=f"{path}.{name}") for name, item in value.items()}
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_checked(item, arguments[0], path=f"{path}[{place}]") for place, item in enumerate(value))
    return _scalar(value, hint, path=path)


def _scalar(value: Any, hint: Any, *, path: str) -> Any:
    """Integers pass for floats; nothing passes for a boolean but a boolean."""
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"recipe key {path!r} is {value!r} ({type(value).__name__}); it must be {_name(hint)}")


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)


def with_setting(mapping: Mapping[str, Any], setting: str) -> dict[str, Any]:
    """The mapping with one `dotted.key=value`; the value is read as TOML, or as a plain word when it is not.

    Raises ConfigError for a setting without `=` or through a key that holds no table.
    """
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"setting {setting!r} is not key=value; for example --set optimizer.learning_rate=0.003")
    return _replaced(mapping, key.strip().split("."), _parsed(text.strip()), setting=setting)


def _replaced(mapping: Mapping[str, Any], keys: Sequence[str], value: Any, *, setting: str) -> dict[str, Any]:
    if len(keys) == 1:
        return {**mapping, keys[0]: value}
    inner = mapping.get(keys[0], {})
    if not isinstance(inner, Mapping):
        raise ConfigError(f"setting {setting!r}: {keys[0]!r} is {inner!r}, not a table of settings")
    return {**mapping, keys[0]: _replaced(inner, keys[1:], value, setting=setting)}


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the other's settings over it; tables are merged, everything else is replaced."""
    found = dict(base)
    for key, value in over.items():
        inner = found.get(key)
        found[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return found


def to_mapping(settings: Any) -> dict[str, Any]:
    """Every setting of a dataclass tree, defaults included, as plain dictionaries, lists and scalars."""
    return {key: _plain(value) for key, value in dataclasses.asdict(settings).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def flattened(mapping: Mapping[str, Any], *, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every setting that is not a table; an empty table is its own value."""
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, path=f"{path}{key}.")
        else:
            yield path + key, value


def to_toml(mapping: Mapping[str, Any], *, table: str = "") -> str:
    """The mapping as TOML, scalars before tables, so that reading it gives the mapping again."""
    lines = [f"{key} = {_literal(value)}" for key, value in mapping.items() if not isinstance(value, Mapping)]
    text = (f"[{table}]\n" if table else "") + "".join(f"{line}\n" for line in lines)
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            text += "\n" + to_toml(value, table=f"{table}.{key}" if table else key)
    return text


ESCAPES = MappingProxyType({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"})


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(ESCAPES.get(letter, letter) for letter in value) + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value)
