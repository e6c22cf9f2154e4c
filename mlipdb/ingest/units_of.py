"""Units of a source: what the user declares with --unit, else what the file says, else what the format fixes."""

from collections.abc import Mapping
from typing import overload

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.units import FACTORS, convert

# Spellings that files use; the dimension of a unit tells which quantity it belongs to.
ALIASES: dict[str, str] = {
    "ev": "eV", "electronvolt": "eV", "ha": "hartree", "hartree": "hartree", "eh": "hartree", "mev": "meV",
    "kcal/mol": "kcal/mol", "kj/mol": "kJ/mol",
    "a": "Å", "å": "Å", "ang": "Å", "angstrom": "Å", "angstroms": "Å", "bohr": "bohr", "a0": "bohr",
    "nm": "nm", "nanometer": "nm", "nanometers": "nm",
    "ev/a": "eV/Å", "ev/å": "eV/Å", "ev/ang": "eV/Å", "ev/angstrom": "eV/Å", "mev/å": "meV/Å", "mev/ang": "meV/Å",
    "hartree/bohr": "hartree/bohr", "ha/bohr": "hartree/bohr", "eh/a0": "hartree/bohr", "hartree/a0": "hartree/bohr",
    "kcal/mol/å": "kcal/mol/Å", "kcal/mol/a": "kcal/mol/Å", "kcal/mol/ang": "kcal/mol/Å",
    "kcal/mol/angstrom": "kcal/mol/Å",
    "ev/a^3": "eV/Å³", "ev/a3": "eV/Å³", "ev/å³": "eV/Å³", "ev/å^3": "eV/Å³", "ev/ang^3": "eV/Å³",
    "ev/ang**3": "eV/Å³", "ev/angstrom^3": "eV/Å³", "gpa": "GPa", "kbar": "kbar", "kbar(vasp)": "kbar(VASP)",
    "kbar-vasp": "kbar(VASP)",
}  # fmt: skip
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "energy": ("eV", "meV", "hartree", "kcal/mol", "kJ/mol"),
    "positions": ("Å", "angstrom", "bohr", "nm"),
    "forces": ("eV/Å", "eV/angstrom", "meV/Å", "hartree/bohr", "kcal/mol/Å"),
    "stress": ("eV/Å³", "eV/angstrom^3", "GPa", "kbar", "kbar(VASP)"),
}


def canonical(unit: str) -> str | None:
    """The name that mlipdb has for a unit however a file spells it, None where it is unknown."""
    if unit in FACTORS:
        return unit
    return ALIASES.get("".join(unit.lower().split()).replace("ångström", "angstrom"))


def checked_units(declared: Mapping[str, str], *, extra: Mapping[str, tuple[str, ...]] | None = None) -> dict[str, str]:
    """What the user declared, with canonical names; a minus before a unit turns the sign (``-eV/Å³``).

    extra are words beside units that a format allows for a quantity. Raises ConfigError for a quantity or unit that is
    not known.
    """
    found = {}
    for quantity, word in declared.items():
        if quantity not in DIMENSIONS:
            raise ConfigError(
                f"--unit {quantity}: no such quantity.{did_you_mean(quantity, DIMENSIONS)} "
                f"Known: {', '.join(DIMENSIONS)}"
            )
        words = (extra or {}).get(quantity, ())
        if word in words:
            found[quantity] = word
            continue
        sign, plain = ("-", word[1:]) if word.startswith("-") else ("", word)
        unit = canonical(plain)
        if unit is None or unit not in DIMENSIONS[quantity]:
            known = (*DIMENSIONS[quantity], *words)
            raise ConfigError(
                f"--unit {quantity}={word}: that is no unit of {quantity}.{did_you_mean(plain, known)} "
                f"Known: {', '.join(known)}"
            )
        found[quantity] = sign + unit
    return found


@overload
def to_internal(value: float, unit: str) -> float: ...
@overload
def to_internal(value: Float64[np.ndarray, "..."], unit: str) -> Float64[np.ndarray, "..."]: ...
def to_internal(value: float | np.ndarray, unit: str) -> float | np.ndarray:
    """A value in a unit as eV, Å, eV/Å or eV/Å³; with the other sign where the unit begins with a minus."""
    return -convert(value, unit[1:]) if unit.startswith("-") else convert(value, unit)
