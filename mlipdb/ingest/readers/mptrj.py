"""MPtrj JSON: {mp_id: {frame_id: record}}, plain or gzip, read as a stream."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlipdb.errors import IngestError, MlipdbError
from mlipdb.ingest.declared import refuse_keys, refuse_units
from mlipdb.ingest.json_records import JsonRecord, RawRecord, parse_record, raw_records
from mlipdb.ingest.mptrj_record import ENERGIES_PER_ATOM, MptrjRecord, rows, structure_of, typed_record
from mlipdb.ingest.pymatgen_json import RecordError, array, kind, number, optional, read_structure
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.stream import ByteStream
from mlipdb.labels import Label, Method
from mlipdb.structures import Structure
from mlipdb.units import convert

_FRAME_ID = re.compile(r"(?P<task_id>.+)-(?P<calc_id>\d+)-(?P<ionic_step>\d+)")
_HEAD = re.compile(rb'\s*\{\s*"(?P<id>[^"\\]+)"\s*:\s*\{\s*"(?P<frame>[^"\\]+-\d+-\d+)"\s*:\s*\{')
# Fields with a place of their own; every other number of a record goes to Label.properties.
_FIELDS = frozenset(
    ("structure", "uncorrected_total_energy", "corrected_total_energy", "force", "stress", "magmom", "bandgap", "mp_id")
)


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
    raw_is_slice: ClassVar[bool] = True
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
        """The records in file order, unparsed; ConfigError for keys and units, which the format fixes."""
        refuse_keys(options.get("keys", {}), "MPtrj")
        refuse_units(options.get("units", {}), "MPtrj")
        with ByteStream(path, options.get("digest")) as stream:
            yield from raw_records(stream)

    def parse(self, raw: RawRecord, path: Path) -> Frame | Rejected:
        """What a record says; raises IngestError where it is no JSON, because the file is damaged."""
        group, key, offset, data = raw
        location = f"byte {offset}"
        usual = typed_record(data) if key else None
        try:
            return _frame(parse_record(raw, path), location) if usual is None else _usual_frame(usual, raw, location)
        except IngestError:  # not of this record alone
            raise
        except MlipdbError as error:
            reason = str(error)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            reason = f"the record does not have MPtrj's layout ({type(error).__name__}: {error})"
        return Rejected(key=key or group, location=location, reason=reason)


def _usual_frame(record: MptrjRecord, raw: RawRecord, location: str) -> Frame:
    group, key, *_ = raw
    split_frame_id(key)
    _check_material(record.mp_id, group)
    given = {name: getattr(record, name) for name in ENERGIES_PER_ATOM}
    label = Label(
        energy_uncorrected=record.uncorrected_total_energy,
        energy_corrected=record.corrected_total_energy,
        band_gap=record.bandgap,
        forces=rows(record.force),
        stress=None if record.stress is None else convert(np.array(record.stress), "kbar(VASP)"),
        magmoms=None if record.magmom is None else np.array(record.magmom, np.float64),
        properties={name: value for name, value in given.items() if value is not None},
    )
    structure = structure_of(record)
    return Frame(structure=structure, label=label, external_id=key, material=group, location=location)


def _check_material(stated: object, group: str) -> None:
    if stated not in (None, group):
        raise RecordError(f"mp_id is {stated!r} but the record stands under {group!r}")


def _frame(record: JsonRecord, location: str) -> Frame:
    fields = record.value
    if not record.key:
        raise RecordError(f"material {record.group!r} holds a {kind(fields)}; expected an object of frames")
    if not isinstance(fields, dict):
        raise RecordError(f"the record is a {kind(fields)}; expected an object")
    split_frame_id(record.key)
    _check_material(fields.get("mp_id"), record.group)
    structure = read_structure(fields.get("structure"))
    return Frame(
        structure=structure,
        label=_label(fields, structure),
        external_id=record.key,
        material=record.group,
        location=location,
    )


def _label(fields: dict[str, Any], structure: Structure) -> Label:
    """Everything that a record says of energies, forces, stress and moments; null and absent are None."""
    forces = fields.get("force")
    if forces is None:
        raise RecordError("force is missing")
    if len(forces) != len(structure):
        raise RecordError(f"force has {len(forces)} rows for {len(structure)} sites")
    stress, magmoms = fields.get("stress"), fields.get("magmom")
    return Label(
        energy_uncorrected=optional(fields, "uncorrected_total_energy"),
        energy_corrected=optional(fields, "corrected_total_energy"),
        band_gap=optional(fields, "bandgap"),
        forces=array(forces, "force"),
        stress=None if stress is None else convert(array(stress, "stress"), "kbar(VASP)"),
        magmoms=None if magmoms is None else array(magmoms, "magmom"),
        properties={
            name: number(value, name)
            for name, value in fields.items()
            if type(value) in (float, int) and name not in _FIELDS  # not isinstance: a bool is no number
        },
    )
