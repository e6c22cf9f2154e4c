"""A finite-displacement phonon calculation as frames: the perfect supercell with its Hessian, then the displaced."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from mlipdb.errors import IngestError, MlipdbError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.stream import ByteStream, FileDigest
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure

if TYPE_CHECKING:
    from phonopy import Phonopy
    from phonopy.interface.phonopy_yaml import PhonopyYamlData

# What phonopy raises for a file that makes no sense: it checks little of what it is given.
PHONOPY_ERRORS = (
    ArithmeticError,  # a whole number of hundreds of digits
    AssertionError,  # a supercell matrix that makes no supercell
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)
ASYMMETRY = 0.2  # of the largest element: finite differences stay below (0.06 is the most of 510 in phonondb)
MATERIAL = re.compile(r"\b(?:m(?:p|vc)-\d+|agm\d{5,})\b")


def in_words(error: BaseException) -> str:
    """An error of phonopy's, whose assertions often say nothing, for a message."""
    text = str(error) or "the cells of the file do not fit together"
    return f"{type(error).__name__}: {text}"


class PhononError(MlipdbError):
    """A calculation that does not make sense; it goes to quarantine."""


def taken_or_rejected(take: Callable[[], "Phonons"], *, name: str, location: str, wrong: str) -> "Phonons | Rejected":
    """The calculation that take gives, or why it goes to quarantine; wrong says what an error of phonopy's means.

    Raises IngestError where take does: the file itself cannot be read.
    """
    try:
        return take()
    except IngestError:
        raise
    except MlipdbError as error:
        return Rejected(key=name, location=location, reason=str(error))
    except PHONOPY_ERRORS as error:
        return Rejected(key=name, location=location, reason=f"{wrong} ({in_words(error)})")


@dataclass(frozen=True, eq=False, kw_only=True)
class Displaced:
    """One displaced supercell: all displacements in Å, its forces in eV/Å, its energy in eV where it is known."""

    displacements: Float64[np.ndarray, "atoms 3"]
    forces: Float64[np.ndarray, "atoms 3"]
    energy: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Phonons:
    """A calculation in mlipdb's units. hessian[i, j, a, b] is +d²E/dx_ia dx_jb in eV/Å² of the whole supercell.

    energy is the perfect supercell's. A name makes the frames' ids: name-supercell, name-d0001 and so on.
    """

    name: str
    material: str
    location: str
    atomic_numbers: Int64[np.ndarray, " atoms"]
    positions: Float64[np.ndarray, "atoms 3"]
    cell: Float64[np.ndarray, "3 3"]
    displaced: tuple[Displaced, ...] = ()
    hessian: Float64[np.ndarray, "atoms atoms 3 3"] | None = None
    energy: float | None = None
    method: Method | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def frames(self) -> Iterator[Frame | Rejected]:
        """The perfect supercell where it has a Hessian or an energy, then the displaced ones."""
        if self.hessian is not None or self.energy is not None:
            yield self._frame("supercell", np.zeros_like(self.positions), self._perfect)
        for number, one in enumerate(self.displaced, start=1):
            label = Label(energy_uncorrected=one.energy, forces=one.forces, method=self.method)
            yield self._frame(f"d{number:04d}", one.displacements, label)

    @property
    def _perfect(self) -> Label:
        rows = hessian_rows(self.hessian) if self.hessian is not None else None
        return Label(
            energy_uncorrected=self.energy,
            hessian_rows=rows,
            hessian_row_numbers=None if rows is None else np.arange(len(rows), dtype=np.int32),
            method=self.method,
        )

    def _frame(self, suffix: str, displacements: Float64[np.ndarray, "atoms 3"], label: Label) -> Frame | Rejected:
        key, location = f"{self.name}-{suffix}", f"{self.location}, {suffix}"
        try:
            if label.hessian_rows is not None and self.hessian is not None:
                check_hessian(self.hessian)
            structure = make_structure(
                self.atomic_numbers, self.positions + displacements, cell=self.cell, pbc=(True, True, True)
            )
        except MlipdbError as error:
            return Rejected(key=key, location=location, reason=str(error))
        except ValueError as error:
            return Rejected(key=key, location=location, reason=f"its arrays do not fit together ({error})")
        return Frame(
            structure=structure,
            label=label,
            external_id=key,
            material=self.material,
            location=location,
            tags=self.tags,
        )


def hessian_rows(hessian: Float64[np.ndarray, "atoms atoms 3 3"]) -> Float64[np.ndarray, "rows atoms 3"]:
    """The force constants as Hessian rows: row 3·i + a holds d²E/dx_ia dx_jb at [j, b]."""
    atoms = len(hessian)
    return np.ascontiguousarray(hessian.transpose(0, 2, 1, 3).reshape(3 * atoms, atoms, 3))


def check_hessian(hessian: Float64[np.ndarray, "atoms atoms 3 3"]) -> None:
    """PhononError where a Hessian is not symmetric or curves downwards on the whole; nothing is imposed on it."""
    matrix = hessian_rows(hessian).reshape(3 * len(hessian), -1)
    largest = float(np.abs(matrix).max())
    apart = float(np.abs(matrix - matrix.T).max())
    if not np.isfinite(largest):
        raise PhononError("the force constants hold a value that is not finite")
    if apart > ASYMMETRY * largest:
        raise PhononError(
            f"the force constants are not symmetric: elements differ by {apart:.3g} eV/Å² from their mirror, the "
            f"largest is {largest:.3g}; they are of another supercell or in another order"
        )
    if np.trace(matrix) <= 0:
        raise PhononError(
            f"the trace of the force constants is {np.trace(matrix):.3g} eV/Å²; +d²E/dxdx has a positive one near a "
            "minimum: they have the other sign, or the calculation did not converge"
        )


def displaced_supercells(dataset: Mapping[str, Any], *, units: Mapping[str, float]) -> tuple[Displaced, ...]:
    """The displaced supercells of a phonopy dataset (of one atom each, or of all) that have forces.

    units gives the factors of length, forces and energy; an energy factor of 0 leaves energies out.
    """
    atoms = dataset.get("natom", 0)
    entries: list[tuple[Any, Any, Any]] = []
    for first in dataset.get("first_atoms", ()):
        moved = np.zeros((atoms, 3))
        moved[first["number"]] = first["displacement"]
        entries.append((moved, first.get("forces"), first.get("supercell_energy")))
    if "displacements" in dataset:
        count = len(dataset["displacements"])
        forces = dataset.get("forces", [None] * count)
        energies = dataset.get("supercell_energies", [None] * count)
        entries += zip(dataset["displacements"], forces, energies, strict=True)
    return tuple(
        Displaced(
            displacements=np.asarray(moved, dtype=np.float64) * units["length"],
            forces=np.asarray(forces, dtype=np.float64) * units["forces"],
            energy=None if energy is None or not units["energy"] else float(energy) * units["energy"],
        )
        for moved, forces, energy in entries
        if forces is not None
    )


def unit_factors(calculator: str | None) -> dict[str, float]:
    """Factors from a calculator's units, as phonopy keeps them, to Å, eV/Å, eV and eV/Å²."""
    from phonopy.interface import calculator as interface  # which all versions of phonopy have

    units: Any = vars(interface)["get_calculator_physical_units"](calculator)
    known = vars(units) if hasattr(units, "__dataclass_fields__") else units
    length, forces = float(known["distance_to_A"]), float(known["force_to_eVperA"])
    energy = 1.0 if known.get("energy_unit", "eV") == "eV" and known["length_unit"] == "angstrom" else 0.0
    return {"length": length, "forces": forces, "energy": energy, "hessian": forces / length}


def make_phonopy(
    unitcell: Any, supercell_matrix: Any, *, primitive_matrix: Any = None, calculator: str | None = None
) -> "Phonopy":
    """A phonopy object; its supercell is made by phonopy. Without a primitive matrix the unit cell is the primitive."""
    from phonopy import Phonopy

    if unitcell is None or supercell_matrix is None:
        raise ValueError("there is no unit_cell or no supercell_matrix")
    matrix = np.eye(3) if primitive_matrix is None else primitive_matrix
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a supercell has fewer symmetries than its crystal is no fault here
        return Phonopy(unitcell, supercell_matrix, primitive_matrix=matrix, calculator=calculator, log_level=0)


def phonopy_of(data: "PhonopyYamlData") -> "Phonopy":
    """The phonopy object of parsed YAML."""
    return make_phonopy(
        data.unitcell, data.supercell_matrix, primitive_matrix=data.primitive_matrix, calculator=data.calculator
    )


def full_hessian(phonon: "Phonopy", constants: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "atoms atoms 3 3"]:
    """Force constants of the whole supercell; those given for the primitive cell's atoms are translated to all."""
    atoms = len(phonon.supercell)
    if constants.shape == (atoms, atoms, 3, 3):
        return np.asarray(constants, dtype=np.float64)
    if constants.shape != (len(phonon.primitive), atoms, 3, 3):
        raise PhononError(
            f"the force constants have the shape {constants.shape}; expected ({atoms}, {atoms}, 3, 3), or "
            f"({len(phonon.primitive)}, {atoms}, 3, 3) for the atoms of the primitive cell"
        )
    from phonopy.harmonic.force_constants import compact_fc_to_full_fc

    return np.asarray(compact_fc_to_full_fc(phonon.primitive, np.ascontiguousarray(constants)), dtype=np.float64)


def produced_hessian(phonon: "Phonopy", dataset: Mapping[str, Any]) -> Float64[np.ndarray, "atoms atoms 3 3"]:
    """Force constants by phonopy from the forces of displaced supercells; no acoustic sum rule is imposed."""
    phonon.dataset = dict(dataset)  # type: ignore[assignment]  # of the keys that its types name
    phonon.produce_force_constants(calculate_full_force_constants=True, show_drift=False)
    return full_hessian(phonon, np.asarray(phonon.force_constants))


def plain_bytes(path: Path, digest: FileDigest | None = None) -> bytes:
    """The whole of a small file, unpacked."""
    parts = []
    with ByteStream(path, digest) as stream:
        while part := stream.read(1 << 20):
            parts.append(part)
    return b"".join(parts)


def load_yaml(text: bytes, where: str) -> dict[str, Any]:
    """A YAML mapping; IngestError where the text ends early or is none."""
    import yaml  # type: ignore[import-untyped]  # without types

    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise IngestError(f"{where}: no YAML, or it was cut ({error}); fetch or copy the whole file again") from error
    if not isinstance(found, dict):
        raise IngestError(f"{where}: expected a YAML mapping, found {type(found).__name__}; fetch the file again")
    return found


def with_tags(phonons: Phonons, **tags: str) -> Phonons:
    """The same calculation with more tags."""
    return replace(phonons, tags={**phonons.tags, **tags})
