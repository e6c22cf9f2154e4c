"""ColabFit's Parquet: the one schema in which ColabFit publishes several hundred data sets."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import ConfigError, IngestError, MlipdbError, did_you_mean
from mlipdb.ingest.colabfit_own import own_facts, restored
from mlipdb.ingest.nested import ColumnError, Numbers, Vectors
from mlipdb.ingest.parquet import batches, columns_of
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.stress_scale import VIRIAL, StressScale
from mlipdb.ingest.units_of import checked_units, to_internal
from mlipdb.labels import Label, Method
from mlipdb.structures import Structure, make_structure

if TYPE_CHECKING:
    import pyarrow as pa

_NEEDED = ("atomic_numbers", "positions", "cell", "pbc")
_ENERGIES = ("formation_energy", "adsorption_energy", "atomization_energy", "energy_above_hull")
_TEXTS = ("property_id", "configuration_id", "dataset_id", "dataset_name", "software", "method")
_OWN = ("material", "configuration_metadata", "property_metadata")  # filled by exports of ours
_WANTED = (
    *_TEXTS, *_OWN, "energy", "atomic_forces", "cauchy_stress", "cauchy_stress_volume_normalized",
    "electronic_band_gap", "names", "labels", *_ENERGIES,
)  # fmt: skip
_MATERIAL = re.compile(r"agm\d{5,}|m(?:p|vc)-\d+")  # Alexandria's and the Materials Project's ids in a name
_KEYS = ("material", "energy")


class ColabfitReader:
    """One row, one property of one configuration: eV, Å, eV/Å, eV/Å³, as ColabFit converts to, each with its method.

    A row's stress is trusted only where its size allows one reading: the flag cauchy_stress_volume_normalized does
    not say whether it was multiplied by the volume. ``--unit stress=eV/Å³`` or ``stress=virial`` decides.
    """

    name: ClassVar[str] = "colabfit"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def claims(self, path: Path, head: bytes) -> str | None:
        """A Parquet file with ColabFit's ids and names of labels."""
        columns = columns_of(path, head)
        if {"configuration_id", "atomic_numbers", "positions"} <= columns and columns & {"atomic_forces", "energy"}:
            return "a Parquet file with ColabFit's columns (configuration_id, atomic_numbers, atomic_forces)"
        return None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the rows in file order; the row's number is kept.

        options: ``units`` (energy, forces, stress, positions), ``keys`` (material: a column; energy: the column to
        take as the energy), ``file``, ``notes``.
        """
        keys = _checked_keys(options.get("keys", {}))
        wanted = tuple(dict.fromkeys((*_WANTED, *keys.values())))
        meaning = _Meaning(path, options, keys)
        for start, batch, columns in batches(path, needed=_NEEDED, wanted=wanted):
            try:
                rows = _Batch(batch, columns, meaning)
            except ColumnError as error:
                raise IngestError(f"{path}: {error}; fetch the file as ColabFit publishes it") from error
            yield from rows.frames(start)


def _checked_keys(keys: Mapping[str, str]) -> dict[str, str]:
    for quantity in keys:
        if quantity not in _KEYS:
            raise ConfigError(
                f"--key {quantity}: colabfit's columns have fixed names; known are {', '.join(_KEYS)}."
                f"{did_you_mean(quantity, _KEYS)}"
            )
    return dict(keys)


class _Meaning:
    """What holds for the whole file."""

    def __init__(self, path: Path, options: Mapping[str, Any], keys: Mapping[str, str]) -> None:
        declared = checked_units(options.get("units", {}), extra={"stress": (VIRIAL,)})
        self.file = str(options.get("file") or path.name)
        self.source = str(options.get("source") or path.stem)
        self.keys = keys
        self.units = {"energy": "eV", "forces": "eV/Å", "positions": "Å"} | declared
        about = own_facts(path)
        self.own = about is not None
        self.keep_id = about is not None and len(about.get("methods", ())) <= 1
        if self.own:
            declared = {"stress": "eV/Å³"} | declared
        self.scale = StressScale(path, declared.get("stress"), options)


class _Batch:
    """The columns of some rows, each converted once."""

    def __init__(self, batch: "pa.RecordBatch", columns: frozenset[str], meaning: _Meaning) -> None:
        self._meaning = meaning
        self._rows = len(batch)
        self._numbers = Numbers(batch.column("atomic_numbers"), name="atomic_numbers", kind=np.int64)
        self._positions = Vectors(batch.column("positions"), name="positions")
        self._cell = Vectors(batch.column("cell"), name="cell")
        self._pbc = Numbers(batch.column("pbc"), name="pbc", kind=np.bool_)
        self._forces = _maybe(batch, columns, "atomic_forces")
        self._stress = _maybe(batch, columns, "cauchy_stress")
        wanted = [name for name in (*_WANTED, *meaning.keys.values()) if name in columns]
        plain = [name for name in dict.fromkeys(wanted) if name not in ("atomic_forces", "cauchy_stress")]
        self._plain = {name: batch.column(name).to_pylist() for name in plain}

    def frames(self, start: int) -> Iterator[Frame | Rejected]:
        self._look_at_stress()
        for index in range(self._rows):
            location = f"row {start + index}"
            key = self._value("property_id", index) or self._value("configuration_id", index)
            key = str(key or f"{self._meaning.file}-{start + index}")
            try:
                yield self._frame(index, key=key, row=start + index)
            except MlipdbError as error:
                yield Rejected(key=key, location=location, reason=str(error))
            except (OverflowError, TypeError, ValueError) as error:
                yield Rejected(key=key, location=location, reason=f"not ColabFit's layout ({error})")

    def _frame(self, index: int, *, key: str, row: int) -> Frame:
        structure = self._structure(index)
        names, labels = self._value("names", index) or [], self._value("labels", index) or []
        dataset = self._value("dataset_name", index) or self._value("dataset_id", index)
        tags = {"dataset": str(dataset)} if dataset else {}
        if labels:
            tags["label"] = ", ".join(sorted(map(str, labels)))
        frame = Frame(
            structure=structure,
            label=self._label(index, structure),
            external_id=key,
            material=self._material(index, names, dataset=str(dataset or self._meaning.source), key=key),
            location=f"row {row}",
            tags=tags,
            row=row,
        )
        if not self._meaning.own:
            return frame
        configuration, label = (self._value(name, index) for name in _OWN[1:])
        return restored(frame, configuration, label, keep_id=self._meaning.keep_id)

    def _material(self, index: int, names: Sequence[str], *, dataset: str, key: str) -> str:
        """The column that was declared, else an id in the row's names, else the configuration itself."""
        column = self._meaning.keys.get("material", "material")
        if column is not None:
            value = self._value(column, index)
            found = value[0] if isinstance(value, list) and value else value
            if found:
                return str(found)
        ids = (match for match in map(_MATERIAL.search, names) if match)
        match = next(ids, None)
        return match[0] if match else f"{dataset}/{self._value('configuration_id', index) or key}"

    def _structure(self, index: int) -> Structure:
        numbers, positions, pbc = self._numbers[index], self._positions[index], self._pbc[index]
        if numbers is None or positions is None or pbc is None or len(pbc) != 3:
            raise ColumnError("atomic_numbers, positions or pbc are null, or pbc is not of three values")
        unit, cell = self._meaning.units["positions"], self._cell[index]
        return make_structure(
            numbers,
            to_internal(positions, unit),
            cell=None if cell is None else to_internal(cell, unit),
            pbc=(bool(pbc[0]), bool(pbc[1]), bool(pbc[2])),
        )

    def _label(self, index: int, structure: Structure) -> Label | None:
        units = self._meaning.units
        energy = self._value(self._meaning.keys.get("energy", "energy"), index)
        forces = self._forces[index] if self._forces is not None else None
        stress = self._stress[index] if self._stress is not None else None
        properties = {name: float(value) for name in _ENERGIES if (value := self._value(name, index)) is not None}
        label = Label(
            energy_uncorrected=None if energy is None else to_internal(float(energy), units["energy"]),
            band_gap=self._value("electronic_band_gap", index),
            forces=None if forces is None else to_internal(forces, units["forces"]),
            stress=self._meaning.scale.stress(stress, structure.volume) if stress is not None else None,
            properties=properties,
            method=_method(self._value("method", index), self._value("software", index)),
        )
        said = (label.energy_uncorrected, label.band_gap, label.forces, label.stress)
        return label if properties or any(value is not None for value in said) else None

    def _look_at_stress(self) -> None:
        """Show the scale the batch's stresses before the first of them is read."""
        if self._stress is None or not self._meaning.scale.open:
            return
        flags = self._plain.get("cauchy_stress_volume_normalized", [None] * self._rows)
        self._meaning.scale.look(
            (self._safe(self._stress, i), self._volume(i), bool(flags[i])) for i in range(self._rows)
        )

    def _volume(self, index: int) -> float | None:
        cell = self._safe(self._cell, index)
        return None if cell is None or cell.shape != (3, 3) else abs(float(np.linalg.det(cell)))

    def _safe(self, column: Vectors, index: int) -> Float64[np.ndarray, "vectors 3"] | None:
        try:
            return column[index]
        except ColumnError:
            return None

    def _value(self, name: str, index: int) -> Any:
        column = self._plain.get(name)
        return None if column is None else column[index]


def _maybe(batch: "pa.RecordBatch", columns: frozenset[str], name: str) -> Vectors | None:
    """A column of vectors; None where the file has none, or holds nothing but nulls in it."""
    import pyarrow as pa

    if name not in columns or pa.types.is_null(batch.schema.field(name).type):
        return None
    return Vectors(batch.column(name), name=name)


@lru_cache(maxsize=256)
def _method(method: str | None, software: str | None) -> Method | None:
    """``DFT-PBE`` by ``VASP``: the row's own level of theory."""
    if not method:
        return None
    name = f"{method}/{software}" if software else method
    return Method(kind="dft", name=name, code=software, functional=method.removeprefix("DFT-"))
