"""What the metadata of an ASE database say about units: taken where they are understood, refused where not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlipdb.errors import IngestError
from mlipdb.ingest.units_of import DIMENSIONS, canonical

DEFAULTS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³", "positions": "Å"}


@dataclass(frozen=True)
class MetadataUnits:
    """Units in a file's metadata: ``units`` (a mapping or a list in words), ``energy_unit`` and SchNetPack's names.

    declared holds what the user said, which makes the metadata's word unneeded. Raises IngestError for a unit that is
    not understood, with how to declare it.
    """

    path: Path
    metadata: Mapping[str, Any]
    declared: Mapping[str, str]

    def of_columns(self, dimension: str) -> str:
        """The unit of ASE's own columns."""
        return self._stated.get(dimension, DEFAULTS[dimension])

    def of_data(self, name: str, dimension: str, *, row: int) -> str:
        """The unit of a value in data or key_value_pairs; IngestError where the metadata do not say it."""
        stated = self._named.get(name) or self._stated.get(dimension)
        if stated is None:
            raise IngestError(
                f"{self.path}: row {row} keeps {name!r} in its data, where no convention of units holds, and "
                f"the metadata say none; pass --unit {dimension}={DEFAULTS[dimension]} (or {self._choices(dimension)})"
            )
        return self.known(stated, dimension)

    def known(self, word: str, dimension: str) -> str:
        """The name that mlipdb has for a unit that the file states."""
        unit = canonical(word)
        if unit is None or unit not in DIMENSIONS[dimension]:
            raise IngestError(
                f"{self.path}: the file says that its {dimension} is in {word!r}, which is not understood; declare it "
                f"with --unit {dimension}=… ({self._choices(dimension)})"
            )
        return unit

    @cached_property
    def _named(self) -> dict[str, str]:
        """SchNetPack: the unit of each property by its name."""
        named = self.metadata.get("_property_unit_dict")
        return {str(name): str(unit) for name, unit in named.items()} if isinstance(named, Mapping) else {}

    @cached_property
    def _stated(self) -> dict[str, str]:
        """Units that hold for the whole file."""
        found = {}
        for dimension in DEFAULTS:
            word = self.metadata.get(f"{dimension}_unit")
            if dimension == "positions":
                word = word or self.metadata.get("_distance_unit")
            if isinstance(word, str) and dimension not in self.declared:
                found[dimension] = self.known(word, dimension)
        units = self.metadata.get("units")
        if isinstance(units, Mapping):
            found |= self._from_mapping(units)
        elif isinstance(units, str) and not set(DEFAULTS) - {"positions"} <= set(self.declared):
            found |= self._from_words(units)
        return found

    def _from_mapping(self, units: Mapping[str, Any]) -> dict[str, str]:
        same = {"force": "forces", "length": "positions", "distance": "positions", "coordinates": "positions"}
        found = {}
        for name, word in units.items():
            dimension = same.get(name, name)
            if dimension in DEFAULTS and dimension not in self.declared:
                found[dimension] = self.known(str(word), dimension)
        return found

    def _from_words(self, text: str) -> dict[str, str]:
        """``eV, eV/A, eV/A^3 (ASE sign)``: each unit says by itself what it is a unit of."""
        found = {}
        for word in filter(None, (part.strip() for part in re.split(r"[,;]", re.sub(r"\(.*?\)", "", text)))):
            unit = canonical(word)
            dimension = next((name for name, units in DIMENSIONS.items() if unit in units), None)
            if unit is None or dimension is None:
                raise IngestError(
                    f"{self.path}: the metadata give units as {text!r}, of which {word!r} is not understood; declare "
                    "them all with --unit energy=… --unit forces=… --unit stress=…"
                )
            found[dimension] = unit
        return {name: unit for name, unit in found.items() if name not in self.declared}

    def _choices(self, dimension: str) -> str:
        return ", ".join(DIMENSIONS[dimension])
