"""A structure: atoms, where they are and how they repeat; with its content hash and formulas."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float64, UInt8

from mlipdb.errors import MlipdbError
from mlipdb.finite import all_finite

SYMBOLS: list[str] = [
    "X",
    "H",
    "He",
    "Li",
    "Be",
    "B",
    "C",
    "N",
    "O",
    "F",
    "Ne",
    "Na",
    "Mg",
    "Al",
    "Si",
    "P",
    "S",
    "Cl",
    "Ar",
    "K",
    "Ca",
    "Sc",
    "Ti",
    "V",
    "Cr",
    "Mn",
    "Fe",
    "Co",
    "Ni",
    "Cu",
    "Zn",
    "Ga",
    "Ge",
    "As",
    "Se",
    "Br",
    "Kr",
    "Rb",
    "Sr",
    "Y",
    "Zr",
    "Nb",
    "Mo",
    "Tc",
    "Ru",
    "Rh",
    "Pd",
    "Ag",
    "Cd",
    "In",
    "Sn",
    "Sb",
    "Te",
    "I",
    "Xe",
    "Cs",
    "Ba",
    "La",
    "Ce",
    "Pr",
    "Nd",
    "Pm",
    "Sm",
    "Eu",
    "Gd",
    "Tb",
    "Dy",
    "Ho",
    "Er",
    "Tm",
    "Yb",
    "Lu",
    "Hf",
    "Ta",
    "W",
    "Re",
    "Os",
    "Ir",
    "Pt",
    "Au",
    "Hg",
    "Tl",
    "Pb",
    "Bi",
    "Po",
    "At",
    "Rn",
    "Fr",
    "Ra",
    "Ac",
    "Th",
    "Pa",
    "U",
    "Np",
    "Pu",
    "Am",
    "Cm",
    "Bk",
    "Cf",
    "Es",
    "Fm",
    "Md",
    "No",
    "Lr",
    "Rf",
    "Db",
    "Sg",
    "Bh",
    "Hs",
    "Mt",
    "Ds",
    "Rg",
    "Cn",
    "Nh",
    "Fl",
    "Mc",
    "Lv",
    "Ts",
    "Og",
]
SPIN_LIMIT = 2**31  # what an integer of the catalog holds
ATOMIC_NUMBERS: dict[str, int] = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}


class StructureError(MlipdbError):
    """Arrays that do not make a structure."""


@dataclass(frozen=True, eq=False)
class Structure:
    """One arrangement of atoms.

    positions and cell are in Å, cell rows are the lattice vectors (zero rows where there is none); charge is the total
    charge in e and spin_multiplicity is 2S+1, both None when the source does not say. id is the catalog's, or None
    for a structure that is not stored.
    """

    atomic_numbers: UInt8[np.ndarray, " atoms"]
    positions: Float64[np.ndarray, "atoms 3"]
    cell: Float64[np.ndarray, "3 3"]
    pbc: tuple[bool, bool, bool]
    charge: float | None = None
    spin_multiplicity: int | None = None
    id: int | None = None

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    @property
    def volume(self) -> float | None:
        """|det cell| in Å³; None unless the structure is periodic in three directions."""
        return abs(_determinant(self.cell.tolist())) if all(self.pbc) else None

    @cached_property
    def composition(self) -> dict[int, int]:
        """How many atoms of each atomic number, in ascending order of the number."""
        numbers = self.atomic_numbers.tobytes()  # one byte an atom
        return {number: numbers.count(number) for number in sorted(set(numbers))}

    @cached_property
    def content_hash(self) -> bytes:
        """16 bytes of BLAKE2b over atomic numbers, cell, positions and pbc (and charge and spin where they are set).

        Equal exactly when the stored arrays are equal, so it is stable across databases; -0.0 counts as 0.0.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(np.ascontiguousarray(self.atomic_numbers).tobytes())
        digest.update((np.ascontiguousarray(self.cell, "<f8") + 0.0).tobytes())
        digest.update((np.ascontiguousarray(self.positions, "<f8") + 0.0).tobytes())
        digest.update(bytes(self.pbc))
        if self.charge or self.spin_multiplicity is not None:
            digest.update(f"{self.charge or 0.0!r}/{self.spin_multiplicity}".encode())
        return digest.digest()


def make_structure(
    atomic_numbers: object,
    positions: object,
    *,
    cell: object | None = None,
    pbc: tuple[bool, bool, bool] = (False, False, False),
    charge: float | None = None,
    spin_multiplicity: int | float | None = None,
) -> Structure:
    """A structure from anything array-like, checked: finite numbers, known elements, a cell where it is periodic.

    spin_multiplicity is a whole number, of whatever type.

    Raises StructureError that names what does not fit.
    """
    numbers = np.asarray(atomic_numbers)
    places = np.array(positions, dtype=np.float64, ndmin=2)
    lattice = np.zeros((3, 3)) if cell is None else np.array(cell, dtype=np.float64)
    _check_shapes(numbers, places, lattice)
    _check_values(numbers, places, lattice, pbc)
    periodic = (bool(pbc[0]), bool(pbc[1]), bool(pbc[2]))
    return Structure(numbers.astype(np.uint8), places, lattice, periodic, *checked_electrons(charge, spin_multiplicity))


def checked_electrons(charge: float | None, spin_multiplicity: int | float | None) -> tuple[float | None, int | None]:
    """Charge and 2S+1 as a structure holds them. Raises StructureError for what is neither missing nor possible."""
    if charge is not None and not math.isfinite(charge):
        raise StructureError(f"charge is {charge}; expected a finite number, or none")
    if spin_multiplicity is None:
        return charge, None
    if not (1 <= spin_multiplicity < SPIN_LIMIT and spin_multiplicity == int(spin_multiplicity)):
        raise StructureError(f"spin multiplicity is {spin_multiplicity}; expected 2S+1, a whole number from 1 on")
    return charge, int(spin_multiplicity)


def _check_shapes(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray) -> None:
    if numbers.ndim != 1 or not len(numbers):
        raise StructureError(f"atomic_numbers has shape {numbers.shape}; expected (atoms,) with at least one atom")
    if positions.shape != (len(numbers), 3):
        raise StructureError(f"positions has shape {positions.shape}; expected ({len(numbers)}, 3) for its atoms")
    if cell.shape != (3, 3):
        raise StructureError(f"cell has shape {cell.shape}; expected (3, 3), rows are lattice vectors")


def _check_values(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, bool, bool]) -> None:
    lowest, highest = np.minimum.reduce(numbers), np.maximum.reduce(numbers)
    if not (lowest >= 1 and highest <= 118):  # NaN fails, too
        wrong = highest if lowest >= 1 else lowest
        raise StructureError(f"atomic number {wrong} is not an element (1 to 118)")
    if not (all_finite(positions) and all_finite(cell)):
        raise StructureError("positions or cell hold a value that is not finite")
    vectors = cell.tolist()
    for axis, periodic in enumerate(pbc):
        if periodic and not any(vectors[axis]):
            raise StructureError(
                f"periodic along axis {axis} but that lattice vector is zero; give a cell or pbc=False"
            )
    if all(pbc) and abs(volume := _determinant(vectors)) < 1e-6:
        raise StructureError(f"the cell's volume is {abs(volume):.2e} Å³; its vectors are not independent")


def _determinant(rows: list[list[float]]) -> float:
    """Of three rows of three; for so few numbers numpy takes ten times as long."""
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def parse_elements(text: str) -> tuple[int, ...]:
    """Atomic numbers of symbols such as ``Na Cl`` or ``Na,Cl``, ascending. Raises StructureError for another word."""
    symbols = text.replace(",", " ").split()
    unknown = [symbol for symbol in symbols if symbol not in ATOMIC_NUMBERS]
    if unknown:
        raise StructureError(f"{unknown[0]!r} is not an element; give symbols, as in 'Na Cl O'")
    return tuple(sorted({ATOMIC_NUMBERS[symbol] for symbol in symbols}))


def reduced_formula(composition: dict[int, int]) -> str:
    """OPTIMADE's chemical_formula_reduced: elements in alphabetical order, counts divided by their common divisor."""
    return _reduced_formula(tuple(composition.items()))


@lru_cache(maxsize=4096)  # the frames of a material come one after another
def _reduced_formula(composition: tuple[tuple[int, int], ...]) -> str:
    divisor = math.gcd(*(count for _, count in composition))
    counts = {SYMBOLS[number]: count // divisor for number, count in composition}
    return "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in sorted(counts))


def chemical_system(composition: dict[int, int]) -> str:
    """Elements in alphabetical order joined by dashes, such as ``Fe-Li-O``."""
    return _chemical_system(tuple(composition))


@lru_cache(maxsize=4096)  # as above
def _chemical_system(numbers: tuple[int, ...]) -> str:
    return "-".join(sorted(SYMBOLS[number] for number in numbers))
