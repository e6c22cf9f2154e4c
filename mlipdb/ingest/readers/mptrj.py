"""MPtrj JSON: {mp_id: {frame_id: record}}, plain or gzip, read as a stream."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import MlipdbError
from mlipdb.ingest.json_records import JsonRecord, RawRecord, parse_record, raw_records
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.stream import ByteStream
from mlipdb.labels import Label, Method
from mlipdb.structures import ATOMIC_NUMBERS, Structure, make_structure
from mlipdb.units import convert

_FRAME_ID = re.compile(r"(?P<task_id>.+)-(?P<calc_id>\d+)-(?P<ionic_step>\d+)")
_HEAD = re.compile(rb'\s*\{\s*"(?P<id>[^"\\]+)"\s*:\s*\{\s*"(?P<frame>[^"\\]+-\d+-\d+)"\s*:\s*\{')
# Fields with a place of their own; every other number of a record goes to Label.properties.
_FIELDS = frozenset(
    ("structure", "uncorrected_total_energy", "corrected_total_energy", "force", "stress", "magmom", "bandgap", "mp_id")
)


class RecordError(MlipdbError):
    """A record that does not make sense; it goes to quarantine."""


@dataclass(frozen=True)
class FrameId:
    """A frame id taken apart. task_id holds a dash itself; calc_id 0 is the second relaxation, 1 the first."""

    task_id: str
    calc_id: int
    ionic_step: int


def split_frame_id(frame_id: str) -> FrameId:
    """Split ``task_id-calc_id-ionic_step`` from the right; RecordError when it is not of that form."""
    match = _FRAME_ID.fullmatch(frame_id)
    if match is None:
        raise RecordError(f"frame id {frame_id!r} is not task_id-calc_id-ionic_step")
    return FrameId(match["task_id"], int(match["calc_id"]), int(match["ionic_step"]))


class MptrjReader:
    """The MPtrj file and files of its layout. Forces are eV/Å, stress kbar with VASP's sign, magmoms µB."""

    name: ClassVar[str] = "mptrj"
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".json.gz")
    default_method: ClassVar[Method] = Method(kind="dft", name="MPtrj PBE/VASP", code="VASP", functional="PBE(+U)")

    def claims(self, path: Path, head: bytes) -> str | None:
        """Two objects, the inner one's keys task_id-calc_id-ionic_step."""
        found = _HEAD.match(head)
        if found is None:
            return None
        frame, material = (found[name].decode(errors="replace") for name in ("frame", "id"))
        return f"its first record is {frame!r} of material {material!r}"

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the records in file order; external_id is the frame id, material the mp_id."""
        for record in self.raw_records(path, options):
            yield self.parse(record, path)

    def raw_records(self, path: Path, options: Mapping[str, Any]) -> Iterator[RawRecord]:
        """The records in file order, unparsed."""
        with ByteStream(path, options.get("digest")) as stream:
            yield from raw_records(stream)

    def parse(self, raw: RawRecord, path: Path) -> Frame | Rejected:
        """What a record says; raises IngestError where it is no JSON, because the file is damaged."""
        record = parse_record(raw, path)
        location = f"byte {record.offset}"
        try:
            return _frame(record, location)
        except MlipdbError as error:
            reason = str(error)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            reason = f"the record does not have MPtrj's layout ({type(error).__name__}: {error})"
        return Rejected(key=record.key or record.group, location=location, reason=reason)


def _frame(record: JsonRecord, location: str) -> Frame:
    fields = record.value
    if not record.key:
        raise RecordError(f"material {record.group!r} holds a {_kind(fields)}; expected an object of frames")
    if not isinstance(fields, dict):
        raise RecordError(f"the record is a {_kind(fields)}; expected an object")
    split_frame_id(record.key)
    if fields.get("mp_id") not in (None, record.group):
        raise RecordError(f"mp_id is {fields['mp_id']!r} but the record stands under {record.group!r}")
    structure = _structure(fields.get("structure"))
    return Frame(
        structure=structure,
        label=_label(fields, structure),
        external_id=record.key,
        material=record.group,
        location=location,
    )


def _structure(source: Any) -> Structure:
    """A pymatgen Structure dictionary; its cartesian xyz are taken as they stand, abc only where xyz is missing."""
    if not isinstance(source, dict):
        raise RecordError(f"structure is {_kind(source)}; expected a pymatgen structure")
    lattice, sites = source["lattice"], source["sites"]
    cell = _array(lattice["matrix"], "structure.lattice.matrix")
    periodic_a, periodic_b, periodic_c = lattice.get("pbc") or (True, True, True)
    charge = source.get("charge")
    return make_structure(
        _atomic_numbers(sites),
        _positions(sites, cell),
        cell=cell,
        pbc=(bool(periodic_a), bool(periodic_b), bool(periodic_c)),
        charge=None if charge is None else _number(charge, "structure.charge"),
    )


def _positions(sites: list[Any], cell: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "..."]:
    try:
        return _array([site["xyz"] for site in sites], "structure.sites.xyz")
    except KeyError:
        fractional = _array([site["abc"] for site in sites], "structure.sites.abc")
        return np.asarray(fractional @ cell, dtype=np.float64)


def _atomic_numbers(sites: list[Any]) -> list[int]:
    numbers = []
    for site in sites:
        species = site["species"]
        if len(species) != 1 or species[0].get("occu", 1) != 1 or species[0]["element"] not in ATOMIC_NUMBERS:
            raise next(filter(None, (_fault(site["species"], index) for index, site in enumerate(sites))))
        numbers.append(ATOMIC_NUMBERS[species[0]["element"]])
    return numbers


def _fault(kinds: list[Any], index: int) -> RecordError | None:
    """What is wrong with the species of a site."""
    if len(kinds) != 1 or kinds[0].get("occu", 1) != 1:
        occupancy = ", ".join(f"{kind.get('element')} {kind.get('occu', 1)}" for kind in kinds)
        return RecordError(f"site {index} is partially occupied ({occupancy or 'nothing'}); expected one whole atom")
    symbol = kinds[0]["element"]
    return None if symbol in ATOMIC_NUMBERS else RecordError(f"site {index} holds {symbol!r}, which is not an element")


def _label(fields: dict[str, Any], structure: Structure) -> Label:
    """Everything that a record says of energies, forces, stress and moments; null and absent are None."""
    forces = fields.get("force")
    if forces is None:
        raise RecordError("force is missing")
    if len(forces) != len(structure):
        raise RecordError(f"force has {len(forces)} rows for {len(structure)} sites")
    stress, magmoms = fields.get("stress"), fields.get("magmom")
    return Label(
        energy_uncorrected=_optional(fields, "uncorrected_total_energy"),
        energy_corrected=_optional(fields, "corrected_total_energy"),
        band_gap=_optional(fields, "bandgap"),
        forces=_array(forces, "force"),
        stress=None if stress is None else convert(_array(stress, "stress"), "kbar(VASP)"),
        magmoms=None if magmoms is None else _array(magmoms, "magmom"),
        properties={
            name: float(value)
            for name, value in fields.items()
            if type(value) in (float, int) and name not in _FIELDS  # not isinstance: a bool is no number
        },
    )


def _optional(fields: dict[str, Any], name: str) -> float | None:
    value = fields.get(name)
    return None if value is None else _number(value, name)


def _number(value: Any, name: str) -> float:
    if type(value) not in (float, int):  # not isinstance: a bool is no number
        raise RecordError(f"{name} is {value!r}; expected a number")
    return float(value)


def _array(value: Any, name: str) -> Float64[np.ndarray, "..."]:
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{name} is not an array of numbers ({error})") from error


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
