"""What a worker process runs: fingerprints of structures from their symmetry, or from their bonds."""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Sequence

import moyopy
import numpy as np
import vesin
from ase.data import covalent_radii
from jaxtyping import Bool, Float64, Int64, UInt8

from mlipdb.structures import StructureError, reduced_formula
from mlipdb.subsets.neighbours import completed_cell

# cell in Å with rows as lattice vectors (zero rows where there is none), positions in Å, atomic numbers, periodicity
Crystal = tuple[
    Float64[np.ndarray, "3 3"], Float64[np.ndarray, "_ 3"], UInt8[np.ndarray, " _"], tuple[bool, bool, bool]
]

ROUNDS = 3  # of neighbours of neighbours; each tells larger surroundings apart


def fingerprints(crystals: Sequence[Crystal], *, symprec: float, bond: float, lowest_group: int) -> list[str | None]:
    """A fingerprint of each crystal or molecule; None where neither symmetry nor bonds could be found.

    symprec is in Å; atoms are bonded when they are closer than bond times the sum of their covalent radii; a space
    group below lowest_group says too little, so that bonds are used.
    """
    logging.getLogger("moyo").setLevel(logging.ERROR)  # it warns of every cell that is not primitive in its sense
    return [_fingerprint(crystal, symprec, bond, lowest_group) for crystal in crystals]


def _fingerprint(crystal: Crystal, symprec: float, bond: float, lowest_group: int) -> str | None:
    cell, positions, numbers, pbc = crystal
    formula = reduced_formula(dict(sorted(Counter(numbers.tolist()).items())))
    if all(pbc):
        sites = _sites(cell, positions, numbers, symprec)
        if sites is not None and sites[0] >= lowest_group:
            return f"{formula}/{sites[0]}/{_digest(sites[1])}"
    try:
        bonds = _bond_hash(cell, positions, numbers, np.array(pbc), bond)
    except (RuntimeError, ValueError, StructureError):  # a cell that spans no volume
        return None
    return f"{formula}/bonds/{bonds}"


def _sites(
    cell: Float64[np.ndarray, "3 3"],
    positions: Float64[np.ndarray, "atoms 3"],
    numbers: UInt8[np.ndarray, " atoms"],
    symprec: float,
) -> tuple[int, str] | None:
    """Space group number, and element, multiplicity and site symmetry of each orbit; None where the search fails.

    Orbits are counted in the primitive cell, and a site symmetry without its orientation, so that origin, setting,
    supercell and scale do not matter.
    """
    try:
        fractional = np.linalg.solve(cell.T, positions.T).T
        found = moyopy.MoyoDataset(moyopy.Cell(cell.tolist(), fractional.tolist(), numbers.tolist()), symprec=symprec)
    except ValueError:  # moyo's own report that it found no consistent group; np.linalg.LinAlgError is one, too
        return None
    except BaseException as error:  # a panic in Rust arrives as a class that cannot be imported and is no Exception
        if type(error).__name__ != "PanicException":
            raise
        return None
    primitive = len(found.prim_std_cell.numbers)
    orbits: dict[int, list[int]] = {}
    for atom, orbit in enumerate(found.orbits):
        orbits.setdefault(orbit, []).append(atom)
    sites = [
        (
            int(numbers[orbit]),
            len(atoms) * primitive // len(numbers),
            "".join(sorted(found.site_symmetry_symbols[orbit].replace(".", ""))),
        )
        for orbit, atoms in orbits.items()
    ]
    return int(found.number), repr(sorted(sites))


def _bond_hash(
    cell: Float64[np.ndarray, "3 3"],
    positions: Float64[np.ndarray, "atoms 3"],
    numbers: UInt8[np.ndarray, " atoms"],
    pbc: Bool[np.ndarray, " 3"],
    bond: float,
) -> str:
    """Hash of the graph of bonds (Weisfeiler-Lehman); that of a supercell is that of its cell."""
    first, second = _bonds(cell, positions, numbers, pbc, bond)
    labels = numbers.astype(np.int64)
    for _ in range(ROUNDS):
        around = np.zeros(len(labels), dtype=np.uint64)
        np.add.at(around, first, _mixed(labels[second].astype(np.uint64)))  # a sum forgets the order
        labels = _mixed(labels.astype(np.uint64) * np.uint64(3) + around).astype(np.int64)
    kinds = Counter(labels.tolist())
    common = math.gcd(*kinds.values())
    return _digest(repr(sorted((label, count // common) for label, count in kinds.items())))


def _bonds(
    cell: Float64[np.ndarray, "3 3"],
    positions: Float64[np.ndarray, "atoms 3"],
    numbers: UInt8[np.ndarray, " atoms"],
    pbc: Bool[np.ndarray, " 3"],
    bond: float,
) -> tuple[Int64[np.ndarray, " bonds"], Int64[np.ndarray, " bonds"]]:
    """Both ends of each bond, in both directions, images included."""
    radii = covalent_radii[numbers]
    calculator = vesin.NeighborList(cutoff=2 * bond * float(radii.max()), full_list=True, sorted=False, n_threads=1)
    box = completed_cell(cell, (bool(pbc[0]), bool(pbc[1]), bool(pbc[2])))
    found = calculator.compute(points=positions, box=box, periodic=pbc, quantities="ijd")
    first, second = found[0].astype(np.int64), found[1].astype(np.int64)
    bonded = found[2] < bond * (radii[first] + radii[second])
    return first[bonded], second[bonded]


def _mixed(values: np.ndarray) -> np.ndarray:
    """Each number to one that has nothing to do with it (splitmix64), the same on every machine."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(values ^ (values >> np.uint64(31)))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
