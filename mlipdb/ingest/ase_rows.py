"""What a row of an ASE database means, whichever container it comes from: structure, label, names and tags."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import ConfigError, IngestError, MlipdbError, did_you_mean
from mlipdb.ingest.ase_units import DEFAULTS, MetadataUnits
from mlipdb.ingest.reader import Frame, Rejected, checked_row
from mlipdb.ingest.units_of import checked_units, to_internal
from mlipdb.labels import Label
from mlipdb.structures import Structure, make_structure

# Columns of ASE's own are eV, Å, eV/Å, eV/Å³ by its convention; the names below are looked for in key_value_pairs,
# data and data["info"], where no convention holds.
NAMES: dict[str, tuple[str, ...]] = {
    "energy": ("energy", "REF_energy", "DFT_energy", "dft_energy", "total_energy", "uncorrected_total_energy"),
    "energy_corrected": ("energy_corrected", "corrected_total_energy", "mp2020_corrected_energy"),
    "free_energy": ("free_energy",),
    "energy_zero": ("energy_zero", "energy_sigma_0"),
    "band_gap": ("band_gap", "bandgap"),
    "forces": ("forces", "REF_forces", "DFT_forces", "dft_forces"),
    "stress": ("stress", "REF_stress", "DFT_stress", "dft_stress"),
    "magmoms": ("magmoms",),
    "atomic_energies": ("atomic_energies", "energies"),
    "charge": ("charge", "total_charge"),
    "spin_multiplicity": ("spin_multiplicity", "multiplicity", "spin"),
    "id": ("external_id", "sid", "frame_id", "mptrj_snapshot_id"),
    "material": ("material", "material_id", "mp_id", "mptrj_traj_id", "alexandria_id"),
    "tags": ("split", "subset", "dataset", "data_id", "config_type"),
}
_NAME_SETS = {quantity: frozenset(names) for quantity, names in NAMES.items()}
DIMENSION = {
    "energy_corrected": "energy",
    "free_energy": "energy",
    "energy_zero": "energy",
    "atomic_energies": "energy",
}
TASK_KEYS = ("task_id", "calc_id", "ionic_step")
_MATERIAL = re.compile(r"agm\d{5,}|m(?:p|vc)-\d+")  # ids of Alexandria and of the Materials Project begin a frame's id
_VOIGT = np.array(((0, 5, 4), (5, 1, 3), (4, 3, 2)))  # xx yy zz yz xz xy
_COLUMN, _DATA = "column.", "data."


class RowError(MlipdbError):
    """A row that does not make sense; it goes to quarantine."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AseRow:
    """One row as its container holds it: results are ASE's own columns, info everything else that has a name."""

    number: int
    numbers: Any
    positions: Any
    cell: Any
    pbc: tuple[bool, bool, bool]
    results: Mapping[str, Any]
    info: Mapping[str, Any]
    unique_id: str | None = None
    charge: float | None = None
    constraints: tuple[str, ...] = ()
    fixed_atoms: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class RowMeaning:
    """Turns rows into frames. array makes a value of info into a numpy array, or gives it back as it is."""

    path: Path
    name: str
    keys: Mapping[str, str]
    units: Mapping[str, str]
    source: str
    array: Callable[[Any], Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _units(self) -> MetadataUnits:
        return MetadataUnits(self.path, self.metadata, declared=self.units)

    @cached_property
    def _skip(self) -> frozenset[str]:
        """Names that are no properties of their own."""
        declared = (name.removeprefix(_DATA) for name in self.keys.values())
        units = (f"{quantity}_unit" for quantity in DEFAULTS)
        return frozenset(chain(*NAMES.values(), TASK_KEYS, declared, units))

    @cached_property
    def _tags(self) -> tuple[str, ...]:
        return tuple(self.keys["tags"].split(",")) if "tags" in self.keys else NAMES["tags"]

    def frame(self, row: AseRow) -> Frame | Rejected:
        """The frame, or why it cannot be taken; IngestError where a unit or a key is for the user to say."""
        location = f"row {row.number}"
        try:
            key, material = self._names(row)
        except MlipdbError as error:
            return Rejected(key=str(row.number), location=location, reason=str(error))
        try:
            structure = self._structure(row)
            label = self._label(row, structure)
            place = None if (own := _own(row).get("row")) is None else checked_row(own)
        except IngestError:
            raise
        except MlipdbError as error:
            return Rejected(key=key, location=location, reason=str(error))
        except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            reason = f"the row does not have ASE's layout ({type(error).__name__}: {error})"
            return Rejected(key=key, location=location, reason=reason)
        return Frame(
            structure=structure,
            label=label,
            external_id=key,
            material=material,
            location=location,
            tags=self._row_tags(row),
            row=place,
        )

    def _row_tags(self, row: AseRow) -> dict[str, str]:
        """Names that are for tags, the constraints, and the tags that an export of ours kept."""
        tags = {name: str(row.info[name]) for name in self._tags if isinstance(row.info.get(name), str | int)}
        if row.constraints:
            tags["constraint"] = " ".join(sorted(set(row.constraints)))
        return tags | {str(name): str(value) for name, value in (_own(row).get("tags") or {}).items()}

    def _names(self, row: AseRow) -> tuple[str, str]:
        """The id and the material: the row's own, else what its id begins with, else a material of its own."""
        key = self._text("id", row)
        if key is None and all(name in row.info for name in TASK_KEYS):
            key = "-".join(str(row.info[name]) for name in TASK_KEYS)
        key = key or row.unique_id or f"{self.name}-{row.number}"
        material = self._text("material", row)
        if material is None:
            begins = _MATERIAL.match(key)
            material = begins[0] if begins else f"{self.source}/{key}"
        return key, material

    def _structure(self, row: AseRow) -> Structure:
        unit = self._unit("positions", row)
        charge, multiplicity = self._scalar("charge", row), self._scalar("spin_multiplicity", row)
        return make_structure(
            row.numbers,
            to_internal(np.asarray(row.positions, dtype=np.float64), unit),
            cell=None if row.cell is None else to_internal(np.asarray(row.cell, dtype=np.float64), unit),
            pbc=row.pbc,
            charge=row.charge if charge is None else charge,
            spin_multiplicity=multiplicity or None,  # 0 says "not said" in fairchem's files
        )

    def _label(self, row: AseRow, structure: Structure) -> Label | None:
        energy = self._energy("energy", row)
        atomic = self._array("atomic_energies", row)
        label = Label(
            energy_uncorrected=energy,
            energy_corrected=self._energy("energy_corrected", row),
            free_energy=self._energy("free_energy", row),
            energy_zero=self._energy("energy_zero", row),
            band_gap=self._scalar("band_gap", row),
            forces=self._array("forces", row),
            stress=self._array("stress", row) if structure.volume is not None else None,
            magmoms=self._array("magmoms", row),
            atomic_energies=atomic,
            atomic_energies_include_e0=None if atomic is None else _include_e0(row, atomic, energy),
            properties=self._properties(row),
        )
        return label if has_content(label) else None

    def _properties(self, row: AseRow) -> dict[str, float]:
        """Every other finite number of the row, in the unit that it has."""
        found = {} if not row.fixed_atoms else {"fixed_atoms": float(row.fixed_atoms)}
        if isinstance(row.results.get("magmom"), int | float):
            found["magmom"] = float(row.results["magmom"])
        for name, value in row.info.items():
            if name in self._skip or isinstance(value, str | bool | None):
                continue
            number = value if isinstance(value, int | float) else self._single(value)
            if number is not None and math.isfinite(number):
                found[name] = float(number)
        return found

    def _single(self, value: Any) -> float | None:
        """The number of an array of one."""
        if isinstance(value, dict) and "__ndarray__" in value and math.prod(value["__ndarray__"][0]) != 1:
            return None
        found = self.array(value)
        if not isinstance(found, np.ndarray) or found.size != 1 or found.dtype.kind not in "fiu":
            return None
        return float(found.reshape(-1)[0])

    def _energy(self, quantity: str, row: AseRow) -> float | None:
        value = self._scalar(quantity, row)
        return None if value is None else to_internal(value, self._unit("energy", row, holder=quantity))

    def _scalar(self, quantity: str, row: AseRow) -> float | None:
        value = self._value(quantity, row)
        if value is None:
            return None
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else self._single(value)
        if number is None:
            raise RowError(f"{quantity} is {str(value)[:60]!r}; expected a number")
        return float(number)

    def _array(self, quantity: str, row: AseRow) -> Float64[np.ndarray, "..."] | None:
        value = self._value(quantity, row)
        if value is None:
            return None
        array = _full(quantity, np.asarray(self.array(value), dtype=np.float64))
        dimension = DIMENSION.get(quantity, quantity)
        if dimension in DEFAULTS:
            array = to_internal(array, self._unit(dimension, row, holder=quantity))
        return array

    def _value(self, quantity: str, row: AseRow) -> Any:
        """The raw value of a quantity: declared, else ASE's column, else a name that is known for it."""
        declared = self.keys.get(quantity)
        if declared is not None:
            return self._declared(declared, row)
        column = row.results.get(quantity if quantity != "atomic_energies" else "energies")
        if _NAME_SETS[quantity].isdisjoint(row.info):
            return column
        found = {name: row.info[name] for name in NAMES[quantity] if row.info.get(name) is not None}
        if not found:
            return column
        values = found if column is None else {f"{_COLUMN}{quantity}": column, **found}
        if len(values) > 1:
            self._compare(quantity, values, row)
        return next(iter(values.values()))

    def _declared(self, name: str, row: AseRow) -> Any:
        if not name.startswith(_DATA):
            column = row.results.get(name.removeprefix(_COLUMN))
            if column is not None or name.startswith(_COLUMN):
                return column
        return row.info.get(name.removeprefix(_DATA))

    def _compare(self, quantity: str, values: Mapping[str, Any], row: AseRow) -> None:
        """IngestError where two places hold different values of one quantity."""
        arrays = [_full(quantity, np.asarray(self.array(value), dtype=np.float64)) for value in values.values()]
        first = arrays[0]
        if all(other.size == first.size and np.allclose(other.ravel(), first.ravel(), rtol=1e-6) for other in arrays):
            return
        shown = "; ".join(f"{name} is {_short(array)}" for name, array in zip(values, arrays, strict=True))
        choices = " or ".join(
            f"--key {quantity}={name if name.startswith(_COLUMN) else _DATA + name}" for name in values
        )
        raise IngestError(
            f"{self.path}: row {row.number}: {len(values)} places could hold the {quantity} and they differ: {shown}. "
            f"Say which with {choices}"
        )

    def _text(self, quantity: str, row: AseRow) -> str | None:
        names = (self.keys[quantity],) if quantity in self.keys else NAMES[quantity]
        for name in names:
            value = row.info.get(name.removeprefix(_DATA))
            if isinstance(value, str | int) and str(value):
                return str(value)
        return None

    def _unit(self, dimension: str, row: AseRow, *, holder: str | None = None) -> str:
        """The unit of a quantity; IngestError where its value is in data and nothing says the unit."""
        if dimension in self.units:
            return self.units[dimension]
        stated = row.info.get(f"{dimension}_unit")
        if isinstance(stated, str):
            return self._units.known(stated, dimension)
        if holder is None or self._in_column(holder, row):
            return self._units.of_columns(dimension)
        if holder in DIMENSION and (row.results.get("energy") is not None or "energy" in self.units):
            return self._units.of_columns(dimension)  # another energy beside the one whose unit is known
        name = self.keys.get(holder, "").removeprefix(_DATA) or next(n for n in NAMES[holder] if n in row.info)
        return self._units.of_data(name, dimension, row=row.number)

    def _in_column(self, quantity: str, row: AseRow) -> bool:
        declared = self.keys.get(quantity, quantity)
        if declared.startswith(_DATA):
            return False
        column = declared.removeprefix(_COLUMN) if declared != "atomic_energies" else "energies"
        return row.results.get(column) is not None


def checked_meaning(
    path: Path, options: Mapping[str, Any], *, array: Callable[[Any], Any], metadata: Mapping[str, Any]
) -> RowMeaning:
    """The meaning under a user's keys and units; ConfigError where one is unknown."""
    keys = dict(options.get("keys", {}))
    for quantity in keys:
        if quantity not in NAMES:
            raise ConfigError(
                f"--key {quantity}: no such quantity.{did_you_mean(quantity, NAMES)} Known: {', '.join(NAMES)}"
            )
    return RowMeaning(
        path=path,
        name=str(options.get("file") or path.name),
        keys=keys,
        units=checked_units(options.get("units", {})),
        source=str(options.get("source") or path.stem),
        array=array,
        metadata=metadata,
    )


def merged_info(pairs: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Names of key_value_pairs, data and data["info"] in one; the first of these wins."""
    inner = data.get("info")
    merged = {**(inner if isinstance(inner, dict) else {}), **data, **pairs}
    merged.pop("info", None)
    return merged


def describe_constraints(constraints: Iterable[Any]) -> tuple[tuple[str, ...], int]:
    """Names of ASE constraints, and how many atoms FixAtoms holds."""
    names, fixed = [], 0
    for constraint in constraints:
        if isinstance(constraint, dict) and "name" in constraint:
            names.append(str(constraint["name"]))
            indices = constraint.get("kwargs", {}).get("indices", ())
            shape = indices["__ndarray__"][0] if isinstance(indices, dict) and "__ndarray__" in indices else None
            count = math.prod(shape) if shape is not None else len(indices)
            fixed += count if names[-1] == "FixAtoms" else 0
    return tuple(names), fixed


def has_content(label: Label) -> bool:
    """Whether a label says anything."""
    if label.energy_uncorrected is not None:
        return True
    named = (value for name, value in vars(label).items() if name not in ("properties", "method", "method_id"))
    return any(value is not None for value in named) or bool(label.properties)


def _full(quantity: str, array: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """A stress as 3 × 3 whether it came as 9 numbers or as 6 in Voigt's order; other arrays as they are."""
    if quantity != "stress":
        return array
    if array.size not in (6, 9):
        raise RowError(f"stress has {array.size} numbers; expected 6 (xx yy zz yz xz xy) or 9")
    return array.reshape(-1)[_VOIGT] if array.size == 6 else array.reshape(3, 3)


def _own(row: AseRow) -> Mapping[str, Any]:
    """What an export of ours keeps beside the names of others."""
    own = row.info.get("mlipdb")
    return own if isinstance(own, Mapping) else {}


def _include_e0(row: AseRow, atomic: Float64[np.ndarray, "..."], energy: float | None) -> bool | None:
    """Energies of atoms that add up to the total hold the atoms' own energies; else the row may say it, or nobody."""
    said = _own(row).get("atomic_energies_include_e0")
    if isinstance(said, bool):
        return said
    return True if _adds_up(atomic, energy) else None


def _adds_up(atomic: Float64[np.ndarray, "..."], energy: float | None) -> bool:
    return energy is not None and math.isclose(float(atomic.sum()), energy, rel_tol=1e-6, abs_tol=1e-6)


def _short(array: Float64[np.ndarray, "..."]) -> str:
    return np.array2string(array.ravel()[:3], precision=6)
