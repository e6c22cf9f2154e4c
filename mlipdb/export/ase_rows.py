"""A structure with its labels as the fields of a row of an ASE database, whichever container it goes to."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from mlipdb.export.exporter import ExportItem, ExportOptions, Tally
from mlipdb.labels import ENERGY_KINDS, Label

WHY = "a row of an ASE database has no place for it"
HELD = frozenset((*ENERGY_KINDS, "band_gap", "forces", "stress", "magmoms", "atomic_energies", "properties"))
DATA_ENERGIES = {
    "energy_uncorrected": "uncorrected_total_energy",
    "energy_corrected": "energy_corrected",
    "energy_zero": "energy_zero",
}
RESERVED = frozenset(
    ("external_id", "material", "source", "split", "charge", "spin", "band_gap", "stress_tensor", "mlipdb", "energy",
     "free_energy", "forces", "stress", "magmoms", *DATA_ENERGIES.values())
)  # fmt: skip
_VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))


@dataclass(frozen=True, eq=False)
class AseFields:
    """fields are ASE's own columns, data what has a name of its own (charge and spin as fairchem looks for them)."""

    fields: dict[str, Any]
    data: dict[str, Any]


def ase_fields(item: ExportItem, options: ExportOptions, tally: Tally) -> AseFields:
    """The row of an item: the first method in ASE's columns, the others in data as NAME_energy, NAME_forces, ….

    eV, Å, eV/Å, eV/Å³; stress in Voigt's order xx yy zz yz xz xy, positive under tension. A time or a random id would
    make every export another file, so the id comes from the structure's own and the times are zero.
    """
    structure = item.structure
    fields: dict[str, Any] = {
        "numbers": structure.atomic_numbers.astype(np.int64),
        "positions": structure.positions,
        "cell": structure.cell,
        "pbc": np.array(structure.pbc),
        "unique_id": hashlib.blake2b(f"{item.source}\0{item.external_id}".encode(), digest_size=16).hexdigest(),
        "ctime": 0.0,
        "mtime": 0.0,
        "user": "mlipdb",
        "calculator": "unknown",
        "calculator_parameters": {},
    }
    data: dict[str, Any] = {"external_id": item.external_id, "material": item.material, "source": item.source}
    data.update({name: value for name, value in item.tags.items() if name not in RESERVED})
    for name, value in (("charge", structure.charge), ("spin", structure.spin_multiplicity)):
        if value is not None:
            data[name] = value
    if item.part is not None:
        data["split"] = item.part
    if item.tags or item.row is not None:
        data["mlipdb"] = {"tags": dict(item.tags), "row": item.row}
    for place, label in enumerate(item.labels):
        if label is not None and place == 0:
            _first(fields, data, label, energy=options.methods[0].energy, tally=tally)
        elif label is not None:
            data.update(_further(label, f"{options.methods[place].key}_", energy=options.methods[place].energy))
    tally.without(item, HELD, why=WHY)
    return AseFields(fields, data)


def _first(fields: dict[str, Any], data: dict[str, Any], label: Label, *, energy: str | None, tally: Tally) -> None:
    """Put the label of the first method into ASE's columns, and what they do not have into data."""
    total = None if energy is None else getattr(label, energy)
    columns = {
        "energy": total,
        "free_energy": label.free_energy,
        "forces": label.forces,
        "magmoms": label.magmoms,
        "energies": label.atomic_energies,
    }
    fields.update({name: value for name, value in columns.items() if value is not None})
    if label.stress is not None:
        fields["stress"] = _voigt(label.stress)
        if not _symmetric(label.stress):
            data["stress_tensor"] = label.stress
            tally.lose("stress", "ASE keeps its symmetric part alone; the nine numbers are in data as stress_tensor")
    for kind, name in DATA_ENERGIES.items():
        value = getattr(label, kind)
        if value is not None and kind != energy:
            data[name] = value
    if label.band_gap is not None:
        data["band_gap"] = label.band_gap
    if label.atomic_energies_include_e0 is not None and label.atomic_energies is not None:
        data.setdefault("mlipdb", {})["atomic_energies_include_e0"] = label.atomic_energies_include_e0
    _properties(data, label.properties, tally=tally)


def _properties(data: dict[str, Any], properties: Mapping[str, float], *, tally: Tally) -> None:
    for name, number in properties.items():
        if name in RESERVED or name in data:
            tally.lose(f"property {name}", "that name means something else in the row's data")
        else:
            data[name] = number


def _further(label: Label, prefix: str, *, energy: str | None) -> dict[str, Any]:
    """The label of a further method, each quantity under a name of its own; stress as 3 × 3."""
    found: dict[str, Any] = {}
    for kind in ENERGY_KINDS:
        value = getattr(label, kind)
        if value is not None:
            found[prefix + ("energy" if kind == energy else DATA_ENERGIES.get(kind, kind))] = value
    for name in ("band_gap", "forces", "stress", "magmoms", "atomic_energies"):
        value = getattr(label, name)
        if value is not None:
            found[prefix + name] = value
    return found | {prefix + name: number for name, number in label.properties.items()}


def _voigt(stress: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, " 6"]:
    """The symmetric part as xx yy zz yz xz xy; of a symmetric tensor to the last bit."""
    return (stress if _symmetric(stress) else (stress + stress.T) / 2)[_VOIGT]


def _symmetric(stress: Float64[np.ndarray, "3 3"]) -> bool:
    """To the last bit, so that 0.0 and -0.0 are not the same."""
    return stress.tobytes() == stress.T.tobytes()
