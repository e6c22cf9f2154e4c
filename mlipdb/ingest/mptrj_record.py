"""An MPtrj record parsed straight into its types, quicker than by way of dictionaries.

Only records that are exactly as published come through; about any other the slower way has its say.
"""

from itertools import chain

import msgspec
import numpy as np
from jaxtyping import Float64

from mlipdb.structures import ATOMIC_NUMBERS, Structure, make_structure

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]
ENERGIES_PER_ATOM = ("energy_per_atom", "ef_per_atom", "e_per_atom_relaxed", "ef_per_atom_relaxed")


class _Species(msgspec.Struct, gc=False):
    element: str
    occu: float = 1.0


class _Site(msgspec.Struct, gc=False):
    species: tuple[_Species]
    xyz: Vector


class _Lattice(msgspec.Struct, gc=False):
    matrix: Matrix
    pbc: tuple[bool, bool, bool] | None = None


class _Crystal(msgspec.Struct, gc=False):
    lattice: _Lattice
    sites: list[_Site]
    charge: float | None = None


class MptrjRecord(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The fields of a record as they stand in the file: forces in eV/Å, stress in VASP's kbar, energies in eV."""

    structure: _Crystal
    force: list[Vector]
    uncorrected_total_energy: float | None = None
    corrected_total_energy: float | None = None
    energy_per_atom: float | None = None
    ef_per_atom: float | None = None
    e_per_atom_relaxed: float | None = None
    ef_per_atom_relaxed: float | None = None
    stress: Matrix | None = None
    magmom: list[float] | None = None
    bandgap: float | None = None
    mp_id: str | None = None


_decode = msgspec.json.Decoder(MptrjRecord).decode


def typed_record(data: bytes) -> MptrjRecord | None:
    """The record in some bytes, None where anything in it is not as published."""
    try:
        record = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    sites = record.structure.sites
    if not sites or len(sites) != len(record.force):
        return None
    for site in sites:  # of every atom of millions of records: one plain loop
        (species,) = site.species
        if species.occu != 1 or species.element not in ATOMIC_NUMBERS:
            return None
    return record


def structure_of(record: MptrjRecord) -> Structure:
    """The crystal of a record in Å and e. Raises StructureError where its numbers do not make one."""
    crystal, sites = record.structure, record.structure.sites
    return make_structure(
        [ATOMIC_NUMBERS[site.species[0].element] for site in sites],
        rows([site.xyz for site in sites]),
        cell=crystal.lattice.matrix,
        pbc=crystal.lattice.pbc or (True, True, True),
        charge=crystal.charge,
    )


def rows(vectors: list[Vector]) -> Float64[np.ndarray, "rows 3"]:
    """Vectors as an array, quicker than by numpy alone, which looks first whether all have three numbers."""
    return np.fromiter(chain.from_iterable(vectors), np.float64, 3 * len(vectors)).reshape(-1, 3)
