"""Conversion to the units used inside: eV, Å, eV/Å, eV/Å³, e, µB. The only place that holds factors.

Factors are CODATA 2018. Stress inside has ASE's sign, positive under tension; VASP prints the opposite sign, so its
kbar are the unit ``kbar(VASP)`` with a negative factor.
"""

from typing import overload

import numpy as np
from jaxtyping import Shaped

from mlipdb.errors import UnitError, did_you_mean

HARTREE = 27.211386245988  # eV
BOHR = 0.529177210903  # Å
KCAL_PER_MOL = 4184.0 / 96485.33212331001  # eV
KBAR_PER_EV_PER_CUBIC_ANGSTROM = 1602.1766340

FACTORS: dict[str, float] = {
    "eV": 1.0,
    "meV": 1e-3,
    "hartree": HARTREE,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KCAL_PER_MOL / 4.184,
    "Å": 1.0,
    "angstrom": 1.0,
    "bohr": BOHR,
    "nm": 10.0,
    "eV/Å": 1.0,
    "eV/angstrom": 1.0,
    "meV/Å": 1e-3,
    "hartree/bohr": HARTREE / BOHR,
    "kcal/mol/Å": KCAL_PER_MOL,
    "eV/Å³": 1.0,
    "eV/angstrom^3": 1.0,
    "GPa": 10.0 / KBAR_PER_EV_PER_CUBIC_ANGSTROM,
    "kbar": 1.0 / KBAR_PER_EV_PER_CUBIC_ANGSTROM,
    "kbar(VASP)": -1.0 / KBAR_PER_EV_PER_CUBIC_ANGSTROM,
    "e": 1.0,
    "µB": 1.0,
}


@overload
def convert(value: float, unit: str) -> float: ...
@overload
def convert(value: Shaped[np.ndarray, "*shape"], unit: str) -> Shaped[np.ndarray, "*shape"]: ...
def convert(value: float | np.ndarray, unit: str) -> float | np.ndarray:
    """A value in the named unit as eV, Å, eV/Å, eV/Å³, e or µB; exact for units that are already those.

    Raises UnitError for a unit without a factor.
    """
    if unit not in FACTORS:
        raise UnitError(f"unit {unit!r} is unknown.{did_you_mean(unit, FACTORS)} Known: {', '.join(FACTORS)}")
    factor = FACTORS[unit]
    return value if factor == 1.0 else value * factor
