"""LeMat-Bulk and LeMat-Traj: Parquet that joins the Materials Project, Alexandria and OQMD, a functional a row."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlipdb.errors import ConfigError, IngestError, MlipdbError
from mlipdb.ingest.nested import ColumnError, Numbers, Vectors, Words
from mlipdb.ingest.notes import note
from mlipdb.ingest.parquet import batches, columns_of
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.units_of import checked_units, to_internal
from mlipdb.labels import Label, Method
from mlipdb.structures import ATOMIC_NUMBERS, Structure, make_structure

if TYPE_CHECKING:
    import pyarrow as pa

_NEEDED = ("immutable_id", "species_at_sites", "cartesian_site_positions", "lattice_vectors")
_PLAIN = (
    "immutable_id", "functional", "energy", "energy_corrected", "band_gap_indirect", "cross_compatibility",
    "relaxation_step", "relaxation_number", "total_magnetization", "dos_ef",
)  # fmt: skip
_NESTED = ("forces", "stress_tensor", "magnetic_moments", "dimension_types")
_PROPERTIES = ("total_magnetization", "dos_ef")
_FUNCTIONALS = {"pbe": "PBE", "pbesol": "PBEsol", "scan": "SCAN", "r2scan": "r2SCAN"}
_ORIGIN = re.compile(r"[A-Za-z]+")


class LematReader:
    """One row, one structure: eV, Å, eV/Å, µB, with the functional of the row as its method.

    The rows keep the stress of their origins, whose units and signs differ; it is left out unless ``--unit
    stress=kbar(VASP)`` (the Materials Project, Alexandria) or another unit declares it.
    """

    name: ClassVar[str] = "lemat"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    default_method: ClassVar[Method] = Method(kind="dft", name="LeMat", code="VASP")

    def claims(self, path: Path, head: bytes) -> str | None:
        """A Parquet file with LeMat's names of columns."""
        if columns_of(path, head).issuperset((*_NEEDED, "functional")):
            return "a Parquet file with LeMat's columns (immutable_id, functional, cartesian_site_positions)"
        return None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the rows in file order; a row of a trajectory is named by its relaxation and step.

        options: ``units`` (energy, forces, stress, positions), ``notes``.
        """
        if options.get("keys"):
            raise ConfigError("--key: LeMat's columns have fixed names; there is nothing to declare")
        units = {"energy": "eV", "forces": "eV/Å", "positions": "Å"} | checked_units(options.get("units", {}))
        for start, batch, columns in batches(path, needed=_NEEDED, wanted=(*_PLAIN, *_NESTED)):
            if "stress" not in units and "stress_tensor" in columns:
                note(
                    options,
                    "the stress was left out: LeMat does not say its unit and sign; --unit stress='kbar(VASP)' takes "
                    "it as the Materials Project and Alexandria print it",
                )
            try:
                rows = _Batch(batch, columns, units)
            except ColumnError as error:
                raise IngestError(f"{path}: {error}; fetch the file as LeMaterial publishes it") from error
            yield from rows.frames(start)


class _Batch:
    """The columns of some rows, each converted once."""

    def __init__(self, batch: "pa.RecordBatch", columns: frozenset[str], units: Mapping[str, str]) -> None:
        self._units = units
        self._rows = len(batch)
        self._species = Words(batch.column("species_at_sites"), ATOMIC_NUMBERS)
        self._positions = Vectors(batch.column("cartesian_site_positions"), name="cartesian_site_positions")
        self._cell = Vectors(batch.column("lattice_vectors"), name="lattice_vectors")
        self._forces = _vectors(batch, columns, "forces")
        self._stress = _vectors(batch, columns, "stress_tensor") if "stress" in units else None
        self._magmoms = _numbers(batch, columns, "magnetic_moments")
        self._periodic = _numbers(batch, columns, "dimension_types")
        self._plain = {name: batch.column(name).to_pylist() for name in _PLAIN if name in columns}

    def frames(self, start: int) -> Iterator[Frame | Rejected]:
        for index in range(self._rows):
            material = str(self._value("immutable_id", index) or "")
            location = f"row {start + index}"
            try:
                yield self._frame(index, material, location)
            except MlipdbError as error:
                yield Rejected(key=material or location, location=location, reason=str(error))
            except (OverflowError, TypeError, ValueError) as error:
                yield Rejected(key=material or location, location=location, reason=f"not LeMat's layout ({error})")

    def _frame(self, index: int, material: str, location: str) -> Frame:
        if not material:
            raise ColumnError("immutable_id is null; the row cannot be told from others")
        structure = self._structure(index)
        steps = [self._value(name, index) for name in ("relaxation_number", "relaxation_step")]
        given = [str(step) for step in steps if step is not None]
        tags = {}
        if origin := _ORIGIN.match(material):
            tags["origin"] = origin[0]
        if self._value("cross_compatibility", index) is not None:
            tags["cross_compatibility"] = str(self._value("cross_compatibility", index)).lower()
        return Frame(
            structure=structure,
            label=self._label(index, structure),
            external_id="-".join([material, *given]),
            material=material,
            location=location,
            tags=tags,
        )

    def _structure(self, index: int) -> Structure:
        numbers, positions, cell = self._species[index], self._positions[index], self._cell[index]
        if numbers is None or positions is None or cell is None:
            raise ColumnError("species_at_sites, cartesian_site_positions or lattice_vectors are null")
        if not numbers.all():
            raise ColumnError(f"site {int(np.argmin(numbers))} of species_at_sites is not an element")
        periodic = self._periodic[index] if self._periodic is not None else None
        a, b, c = (True, True, True) if periodic is None else periodic
        unit = self._units["positions"]
        return make_structure(
            numbers, to_internal(positions, unit), cell=to_internal(cell, unit), pbc=(bool(a), bool(b), bool(c))
        )

    def _label(self, index: int, structure: Structure) -> Label | None:
        forces = self._forces[index] if self._forces is not None else None
        stress = self._stress[index] if self._stress is not None else None
        magmoms = self._magmoms[index] if self._magmoms is not None else None
        found = {name: float(value) for name in _PROPERTIES if (value := self._value(name, index)) is not None}
        label = Label(
            energy_uncorrected=self._energy("energy", index),
            energy_corrected=self._energy("energy_corrected", index),
            band_gap=self._value("band_gap_indirect", index),
            forces=None if forces is None else to_internal(forces, self._units["forces"]),
            stress=None if stress is None or structure.volume is None else to_internal(stress, self._units["stress"]),
            magmoms=None if magmoms is None or not len(magmoms) else np.asarray(magmoms, dtype=np.float64),
            properties=found,
            method=_method(self._value("functional", index)),
        )
        said = (label.energy_uncorrected, label.energy_corrected, label.band_gap, forces, stress, label.magmoms)
        return label if found or any(value is not None for value in said) else None

    def _energy(self, name: str, index: int) -> float | None:
        value = self._value(name, index)
        return None if value is None else to_internal(float(value), self._units["energy"])

    def _value(self, name: str, index: int) -> Any:
        column = self._plain.get(name)
        return None if column is None else column[index]


def _vectors(batch: "pa.RecordBatch", columns: frozenset[str], name: str) -> Vectors | None:
    return Vectors(batch.column(name), name=name) if _has_values(batch, columns, name) else None


def _numbers(batch: "pa.RecordBatch", columns: frozenset[str], name: str) -> Numbers | None:
    return Numbers(batch.column(name), name=name) if _has_values(batch, columns, name) else None


def _has_values(batch: "pa.RecordBatch", columns: frozenset[str], name: str) -> bool:
    """Whether a column is there and of another type than null."""
    import pyarrow as pa

    return name in columns and not pa.types.is_null(batch.schema.field(name).type)


@lru_cache(maxsize=64)
def _method(functional: str | None) -> Method | None:
    """The level of theory of a row; a row that names none has the source's."""
    if not functional:
        return None
    name = _FUNCTIONALS.get(functional.lower(), functional)
    return Method(kind="dft", name=f"LeMat {name}/VASP", code="VASP", functional=name)
