"""MatPES: a JSON list of single-point records, plain, packed or one a line; and its file of isolated atoms."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import MlipdbError
from mlipdb.ingest.declared import refuse_keys, refuse_units
from mlipdb.ingest.json_items import JsonItem, json_documents
from mlipdb.ingest.pymatgen_json import RecordError, array, number, optional, read_structure, rows_of, site_values
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.stream import ByteStream
from mlipdb.labels import Label, Method
from mlipdb.structures import SYMBOLS, Structure
from mlipdb.units import convert

_VOIGT = ((0, 5, 4), (5, 1, 3), (4, 3, 2))  # xx yy zz yz xz xy, as the data set's own page states
_PROPERTIES = ("formation_energy_per_atom", "cohesive_energy_per_atom")
_PROVENANCE = ("md_temperature", "md_pressure", "md_step")


class MatpesReader:
    """MatPES records. eV, Å, eV/Å; stress six numbers in kbar with VASP's sign. PBE and r2SCAN are told by record."""

    name: ClassVar[str] = "matpes"
    suffixes: ClassVar[tuple[str, ...]] = (".json", ".json.gz", ".jsonl")

    def claims(self, path: Path, head: bytes) -> str | None:
        """JSON records with a matpes_id."""
        if head.lstrip()[:1] in (b"[", b"{") and b'"matpes_id"' in head:
            return "it is JSON whose records have a matpes_id"
        return None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the records in file order; row is the position that MatPES's official splits count by.

        The material is the Materials Project id that the structure was made from, so its snapshots stay together.
        """
        refuse_keys(options.get("keys", {}), "MatPES")
        refuse_units(options.get("units", {}), "MatPES")
        source = str(options.get("source") or "matpes")
        with ByteStream(path, options.get("digest")) as stream:
            for item in json_documents(stream):
                yield _item(item, source)


def _item(item: JsonItem, source: str) -> Frame | Rejected:
    location = f"byte {item.offset}"
    fields = item.value if isinstance(item.value, dict) else {}
    key = str(fields.get("matpes_id") or f"record {item.index}")
    try:
        return _frame(item, source, location)
    except MlipdbError as error:
        return Rejected(key=key, location=location, reason=str(error))
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = f"the record does not have MatPES's layout ({type(error).__name__}: {error})"
        return Rejected(key=key, location=location, reason=reason)


def _frame(item: JsonItem, source: str, location: str) -> Frame:
    fields = item.value
    if not isinstance(fields, dict):
        raise RecordError(f"the record is a {type(fields).__name__}; expected an object")
    structure = read_structure(fields.get("structure"))
    provenance = fields.get("provenance") or {}
    key, tags = fields.get("matpes_id"), {}
    if key is None and len(structure) == 1:  # the file of isolated atoms gives them no id
        key = f"atom-{SYMBOLS[int(structure.atomic_numbers[0])]}"
        tags["kind"] = "isolated atom"
    if key is None:
        raise RecordError("matpes_id is missing")
    if provenance.get("md_ensemble"):
        tags["md_ensemble"] = str(provenance["md_ensemble"])
    return Frame(
        structure=structure,
        label=_label(fields, structure, provenance),
        external_id=str(key),
        material=str(provenance.get("original_mp_id") or f"{source}/{key}"),
        location=location,
        tags=tags,
        row=None if "kind" in tags else item.index,  # the atoms are a file beside the one that splits count
    )


def _label(fields: dict[str, Any], structure: Structure, provenance: Mapping[str, Any]) -> Label:
    functional, forces = fields.get("functional"), fields.get("forces")
    if fields.get("energy") is None or forces is None:
        raise RecordError("energy or forces is missing")
    found = {name: optional(fields, name) for name in _PROPERTIES}
    found |= {name: optional(dict(provenance), name) for name in _PROVENANCE}
    return Label(
        energy_uncorrected=number(fields["energy"], "energy"),
        band_gap=optional(fields, "bandgap"),
        forces=rows_of(forces, "forces", len(structure)),
        stress=_stress(fields.get("stress")),
        magmoms=_magmoms(fields, len(structure)),
        properties={name: value for name, value in found.items() if value is not None},
        method=_method(functional),
    )


def _stress(value: Any) -> Float64[np.ndarray, "3 3"] | None:
    if value is None:
        return None
    numbers = array(value, "stress")
    if numbers.shape != (6,):
        raise RecordError(f"stress has shape {numbers.shape}; MatPES has six numbers, xx yy zz yz xz xy in kbar")
    tensor: Float64[np.ndarray, "3 3"] = numbers[np.array(_VOIGT)]
    return convert(tensor, "kbar(VASP)")


def _magmoms(fields: dict[str, Any], natoms: int) -> Float64[np.ndarray, " atoms"] | None:
    """VASP's moments of the sites in µB, else Bader's; None where neither is whole."""
    values = site_values(fields["structure"], "magmom") or fields.get("bader_magmoms")
    if values is None:
        return None
    moments: Float64[np.ndarray, ...] = array(values, "magmoms")
    return moments if moments.shape == (natoms,) else None


def _method(functional: Any) -> Method | None:
    if not functional:
        return None
    return Method(kind="dft", name=f"MatPES {functional}/VASP", code="VASP", functional=str(functional))
