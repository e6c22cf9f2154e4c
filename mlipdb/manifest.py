"""The file mlipdb.toml: which database a directory is, and where its catalog lies."""

import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from mlipdb.errors import CatalogError

NAME = "mlipdb.toml"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """catalog is a file name in the directory or a database URL."""

    uuid: str
    catalog: str


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a directory; CatalogError when there is none or it is of another format."""
    path = directory / NAME
    if not path.is_file():
        raise CatalogError(
            f"{directory} is not an mlipdb database (no {NAME}); "
            f"the first `mlipdb --db {directory} ingest …` makes one, or name another with --db or $MLIPDB_DB"
        )
    try:
        values = tomllib.loads(path.read_text())
        if values["format"] != FORMAT:
            raise CatalogError(f"{path}: format {values['format']}; this mlipdb reads {FORMAT}: upgrade mlipdb")
        return Manifest(uuid=values["uuid"], catalog=values["catalog"])
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise CatalogError(f"{path} is damaged ({error}); restore it from a backup") from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write it in one step: whole or not at all."""
    draft = directory / f".{NAME}-{os.getpid()}"
    # A JSON string is a TOML basic string.
    lines = [f"format = {FORMAT}", f"uuid = {json.dumps(manifest.uuid)}", f"catalog = {json.dumps(manifest.catalog)}"]
    with draft.open("w") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(directory / NAME)
