"""Official splits in a file: which rows, ids or materials are in which part."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import orjson

from mlipdb.errors import ConfigError
from mlipdb.subsets.splits import PART_NAMES


def read_split_file(path: Path) -> tuple[str, dict[str | int, str]]:
    """How a subset names the split (``file:NAME sha256:…``), and the part of each id.

    The file is JSON: ``{"train": [...], "valid": [...], "test": [...]}``. Numbers are positions in the source (as
    MatPES gives them), texts are ids of frames or of materials. Raises ConfigError that says what does not fit.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    try:
        table = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f'{path}: is not JSON ({error}); a split is {{"train": [...], "test": [...]}}') from error
    named = _named(table, path)
    return f"file:{path.name[:180]} sha256:{hashlib.sha256(content).hexdigest()[:16]}", named


def _named(table: object, path: Path) -> dict[str | int, str]:
    if not isinstance(table, Mapping) or not table:
        raise ConfigError(f'{path}: a split is an object such as {{"train": [...], "valid": [...], "test": [...]}}')
    named: dict[str | int, str] = {}
    for word, ids in table.items():
        part = PART_NAMES.get(str(word).lower())
        if part is None:
            raise ConfigError(f"{path}: {word!r} is not a part of a split; the parts are train, valid and test")
        if not isinstance(ids, list) or not all(isinstance(each, str | int) for each in ids):
            raise ConfigError(f"{path}: {word!r} is not a list of row numbers or of ids")
        for each in ids:
            if named.setdefault(each, part) != part:
                raise ConfigError(f"{path}: {each!r} is in {named[each]} and in {part}; each id belongs to one part")
    return named
