"""Structures and numbers as pymatgen writes them in JSON."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import MlipdbError
from mlipdb.structures import ATOMIC_NUMBERS, Structure, make_structure


class RecordError(MlipdbError):
    """A record that does not make sense; it goes to quarantine."""


def read_structure(source: Any) -> Structure:
    """A Structure dictionary; its cartesian xyz are taken as they stand, abc only where xyz is missing. Å and e.

    Raises RecordError or StructureError that says what does not fit.
    """
    if not isinstance(source, dict):
        raise RecordError(f"structure is {kind(source)}; expected a pymatgen structure")
    lattice, sites = source["lattice"], source["sites"]
    cell = array(lattice["matrix"], "structure.lattice.matrix")
    periodic_a, periodic_b, periodic_c = lattice.get("pbc") or (True, True, True)
    charge = source.get("charge")
    return make_structure(
        _atomic_numbers(sites),
        _positions(sites, cell),
        cell=cell,
        pbc=(bool(periodic_a), bool(periodic_b), bool(periodic_c)),
        charge=None if charge is None else number(charge, "structure.charge"),
    )


def _positions(sites: list[Any], cell: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "..."]:
    try:
        return array([site["xyz"] for site in sites], "structure.sites.xyz")
    except KeyError:
        fractional = array([site["abc"] for site in sites], "structure.sites.abc")
        with np.errstate(invalid="ignore", over="ignore"):  # make_structure refuses what is not finite
            return np.asarray(fractional @ cell, dtype=np.float64)


def _atomic_numbers(sites: list[Any]) -> list[int]:
    numbers = []
    for site in sites:  # of every atom of millions of records: one plain loop
        species = site["species"]
        if len(species) != 1 or species[0].get("occu", 1) != 1 or species[0]["element"] not in ATOMIC_NUMBERS:
            raise next(filter(None, (_fault(site["species"], index) for index, site in enumerate(sites))))
        numbers.append(ATOMIC_NUMBERS[species[0]["element"]])
    return numbers


def _fault(kinds: list[Any], index: int) -> RecordError | None:
    """What is wrong with the species of a site."""
    if len(kinds) != 1 or kinds[0].get("occu", 1) != 1:
        occupancy = ", ".join(f"{one.get('element')} {one.get('occu', 1)}" for one in kinds)
        return RecordError(f"site {index} is partially occupied ({occupancy or 'nothing'}); expected one whole atom")
    symbol = kinds[0]["element"]
    return None if symbol in ATOMIC_NUMBERS else RecordError(f"site {index} holds {symbol!r}, which is not an element")


def site_values(source: Any, name: str) -> list[Any] | None:
    """A property of every site of a Structure dictionary; None where any site lacks it."""
    values = [(site.get("properties") or {}).get(name) for site in source["sites"]]
    return None if any(value is None for value in values) else values


def optional(fields: dict[str, Any], name: str) -> float | None:
    """A number that may be null or absent."""
    value = fields.get(name)
    return None if value is None else number(value, name)


def number(value: Any, name: str) -> float:
    """A JSON number as float; RecordError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(f"{name} is {value!r}; expected a number")
    try:
        return float(value)
    except OverflowError as error:  # JSON's whole numbers may have any number of digits
        raise RecordError(f"{name} is {_shortened(value)}; it is too large for a number of 64 bits") from error


def array(value: Any, name: str) -> Float64[np.ndarray, "..."]:
    """Nested lists of numbers as float64; RecordError where they are ragged or no numbers."""
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{name} is not an array of numbers ({error})") from error
    except OverflowError as error:
        raise RecordError(f"{name} holds a whole number that is too large for a number of 64 bits") from error


def _shortened(value: int | float) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}… ({len(text)} characters)"


def rows_of(value: Any, name: str, count: int) -> Float64[np.ndarray, "atoms 3"]:
    """A list of one vector an atom; RecordError where it has another length or shape."""
    rows = array(value, name)
    if rows.shape != (count, 3):
        raise RecordError(f"{name} has shape {rows.shape} for {count} atoms; expected ({count}, 3)")
    return rows


def kind(value: Any) -> str:
    """What a JSON value is, for an error."""
    return "null" if value is None else type(value).__name__
