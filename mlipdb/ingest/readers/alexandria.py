"""Alexandria: relaxation paths {id: [calculation, …]} and relaxed structures {"entries": […]}, mostly .json.bz2."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import ConfigError, MlipdbError
from mlipdb.ingest.declared import refuse_units
from mlipdb.ingest.json_items import JsonItem, json_items
from mlipdb.ingest.pymatgen_json import RecordError, array, number, optional, read_structure, rows_of, site_values
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.stream import ByteStream
from mlipdb.labels import Label, Method
from mlipdb.structures import Structure
from mlipdb.units import convert

_PATHS = re.compile(rb'\s*\{\s*"(?P<id>[^"\\]+)"\s*:\s*\[\s*\{')
_ENTRIES = re.compile(rb'\s*(\{\s*"entries"\s*:\s*)?\[\s*\{')
_PROPERTIES = ("band_gap_dir", "total_mag", "dos_ef", "e_above_hull", "e_form", "e_phase_separation")
# kbar; a relaxed structure is under less than this unless it was relaxed under pressure (57 in 9155 entries at 0 GPa).
PRESSED = 80.0


class AlexandriaReader:
    """Alexandria's JSON. eV, Å, eV/Å; stress 3x3 in kbar with VASP's sign; forces of entries stand at the sites."""

    name: ClassVar[str] = "alexandria"
    suffixes: ClassVar[tuple[str, ...]] = (".json.bz2", ".json")

    def claims(self, path: Path, head: bytes) -> str | None:
        """Calculations with steps under an id, or pymatgen entries with a mat_id."""
        if _ENTRIES.match(head) and b'"ComputedStructureEntry"' in head and b'"mat_id"' in head:
            return "it holds pymatgen entries with a mat_id"
        found = _PATHS.match(head)
        if found and b'"steps"' in head and b'"structure"' in head:
            return f"its first key {found['id'].decode(errors='replace')!r} holds calculations with steps"
        return None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the records in file order; the material is the agm id, which many steps and calculations share.

        options: ``keys`` may hold ``pstress``, the pressure in kbar whose PV the energies hold and that is taken off.
        A step's id is id-calculation-step (id-functional-calculation-step for others than PBE), an entry's its mat_id.
        """
        refuse_units(options.get("units", {}), "Alexandria")
        pressure = _pressure(options.get("keys", {}))
        with ByteStream(path, options.get("digest")) as stream:
            for item in json_items(stream):
                for record in _records(item):
                    yield record.item(pressure)


def _pressure(keys: Mapping[str, str]) -> float | None:
    """--key pstress=500 in kbar; None where it is not given."""
    for name, value in keys.items():
        if name != "pstress" or not re.fullmatch(r"-?\d+(\.\d+)?", value):
            raise ConfigError(
                f"--key {name}={value}: Alexandria names its quantities itself; the only key is pstress=KBAR, the "
                "pressure of the relaxations whose PV is to be taken off the energies (0: they hold none)"
            )
    return float(keys["pstress"]) if "pstress" in keys else None


def _records(item: JsonItem) -> Iterator["_Record"]:
    """The entry that an item is, or the steps of the calculation that it is."""
    location = f"byte {item.offset}"
    if item.group in ("", "entries"):
        data = item.value.get("data") if isinstance(item.value, dict) else None
        key = str(data.get("mat_id")) if isinstance(data, dict) and data.get("mat_id") else f"entry {item.index}"
        yield _Record(item.value, key=key, material=key, location=location, relaxed=True)
        return
    calculation = item.value if isinstance(item.value, dict) else {}
    functional = str(calculation.get("functional") or "PBE")
    key = item.group if functional.upper() == "PBE" else f"{item.group}-{functional}"
    steps = calculation.get("steps")
    if not isinstance(steps, list) or not steps:
        yield _Record(None, key=f"{key}-{item.index}", material=item.group, location=location)
        return
    method = Method(kind="dft", name=f"Alexandria {functional}/VASP", code="VASP", functional=functional)
    for index, step in enumerate(steps):
        name = f"{key}-{item.index}-{index}"
        yield _Record(step, key=name, material=item.group, location=f"{location}, steps[{index}]", method=method)


@dataclass(frozen=True)
class _Record:
    """A step, or an entry, which is relaxed; the file does not say an entry's method."""

    value: Any
    key: str
    material: str
    location: str
    relaxed: bool = False
    method: Method | None = None

    def item(self, pressure: float | None) -> Frame | Rejected:
        """The frame, or why it cannot be taken."""
        try:
            return self._frame(pressure)
        except MlipdbError as error:
            return Rejected(key=self.key, location=self.location, reason=str(error))
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            reason = f"the record does not have Alexandria's layout ({type(error).__name__}: {error})"
            return Rejected(key=self.key, location=self.location, reason=reason)

    def _frame(self, pressure: float | None) -> Frame:
        if not isinstance(self.value, dict):
            raise RecordError("the calculation has no steps" if self.value is None else "the record is no object")
        structure = read_structure(self.value.get("structure"))
        label = (_entry_label if self.relaxed else _step_label)(self.value, structure, self.method, pressure)
        return Frame(
            structure=structure,
            label=label,
            external_id=self.key,
            material=self.material,
            location=self.location,
        )


def _step_label(fields: dict[str, Any], structure: Structure, method: Method | None, pressure: float | None) -> Label:
    if fields.get("energy") is None or fields.get("forces") is None:
        raise RecordError("energy or forces is missing")
    return Label(
        energy_uncorrected=number(fields["energy"], "energy") - _work(pressure, structure),
        forces=rows_of(fields["forces"], "forces", len(structure)),
        stress=_stress(fields.get("stress")),
        method=method,
    )


def _entry_label(fields: dict[str, Any], structure: Structure, method: Method | None, pressure: float | None) -> Label:
    data, forces = fields["data"], site_values(fields["structure"], "forces")
    if fields.get("energy") is None or forces is None:
        raise RecordError("energy is missing, or forces at a site")
    stress, magmoms = _stress(data.get("stress")), site_values(fields["structure"], "magmom")
    _check_pressure(stress, pressure)
    work, corrected = _work(pressure, structure), optional(data, "energy_corrected")
    found = {name: optional(data, name) for name in _PROPERTIES}
    return Label(
        energy_uncorrected=number(fields["energy"], "energy") - work,
        energy_corrected=None if corrected is None else corrected - work,
        band_gap=optional(data, "band_gap_ind"),
        forces=rows_of(forces, "forces", len(structure)),
        stress=stress,
        magmoms=None if magmoms is None else array(magmoms, "magmom"),
        properties={name: value for name, value in found.items() if value is not None},
        method=method,
    )


def _work(pressure: float | None, structure: Structure) -> float:
    """PV in eV."""
    return 0.0 if pressure is None else convert(pressure, "kbar") * (structure.volume or 0.0)


def _check_pressure(stress: Float64[np.ndarray, "3 3"] | None, pressure: float | None) -> None:
    """Raise RecordError for a structure relaxed under pressure: the energy is then E + PV, and P is not in the file."""
    if stress is None or pressure is not None:
        return
    found = -float(np.trace(stress)) / 3 / convert(1.0, "kbar")
    if abs(found) > PRESSED:
        raise RecordError(
            f"a relaxed structure under {found:.0f} kbar: Alexandria's energy is then the enthalpy E + PV, which no "
            "forces belong to. Ingest with --key pstress=KBAR (500 for 50 GPa) to take PV off, or pstress=0 to keep it"
        )


def _stress(value: Any) -> Float64[np.ndarray, "3 3"] | None:
    if value is None:
        return None
    tensor = array(value, "stress")
    if tensor.shape != (3, 3):
        raise RecordError(f"stress has shape {tensor.shape}; expected (3, 3) in kbar")
    return convert(tensor, "kbar(VASP)")
