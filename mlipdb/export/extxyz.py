"""Extended XYZ text in full double precision, as ASE and mlipdb's own reader take it."""

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
import orjson

from mlipdb.export.exporter import ExportItem, ExportOptions, ExportReport, Tally
from mlipdb.labels import ENERGY_KINDS, Label
from mlipdb.structures import SYMBOLS

WHY = "extended XYZ has no place for it"
HELD = frozenset((*ENERGY_KINDS, "band_gap", "forces", "stress", "magmoms", "atomic_energies", "properties"))
# The first method's energies beside the one called energy. Of the two names for an uncorrected energy a reader takes
# either, and one that finds both with different values must ask.
OTHER_ENERGIES = {
    "energy_uncorrected": "uncorrected_total_energy",
    "energy_corrected": "energy_corrected",
    "free_energy": "free_energy",
    "energy_zero": "energy_zero",
}
COLUMNS = (("forces", "forces"), ("magmoms", "magmoms"), ("atomic_energies", "energies"))
RESERVED = frozenset(
    ("Lattice", "Properties", "pbc", "energy", "stress", "virial", "charge", "spin_multiplicity", "band_gap",
     "frame_id", "material_id", "source", "split", "mlipdb", *OTHER_ENERGIES.values())
)  # fmt: skip
_PLAIN = re.compile(r"[A-Za-z0-9_.:+/-]+")


class ExtxyzExporter:
    """One frame a structure. The first method has the standard keys, another NAME_energy, NAME_forces and so on.

    Total energies in eV; stress as nine numbers in eV/Å³, positive under tension. Numbers have the digits that read
    back to the last bit. What describes the whole file stands in FILE.about.json.
    """

    name: ClassVar[str] = "extxyz"
    suffixes: ClassVar[tuple[str, ...]] = (".extxyz", ".xyz", ".extxyz.gz", ".xyz.gz")
    in_file: ClassVar[bool] = False

    def write(self, path: Path, items: Iterator[ExportItem], options: ExportOptions) -> ExportReport:
        """Write the frames one after another."""
        tally = Tally()
        with _opened(path) as file:
            for item in items:
                file.write(_frame(item, options, tally))
                tally.written += 1
        return tally.report()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        # Neither a time nor a name goes into the head, so that equal frames give equal bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as packed:
            yield packed  # type: ignore[misc]  # writes bytes


def _frame(item: ExportItem, options: ExportOptions, tally: Tally) -> bytes:
    """The bytes of a frame: number of atoms, comment line, a row for each atom."""
    structure = item.structure
    info = _structure_info(item)
    names, blocks = ["pos:R:3"], [structure.positions]
    for place, label in enumerate(item.labels):
        if label is None:
            continue
        prefix = "" if place == 0 else f"{options.methods[place].key}_"
        info.update(_label_info(label, prefix, energy=options.methods[place].energy, tally=tally))
        for name, column in COLUMNS:
            values = getattr(label, name)
            if values is not None:
                names.append(f"{prefix}{column}:R:{values.size // len(structure)}")
                blocks.append(values.reshape(len(structure), -1))
        _count_flag(label, options.methods[place].energy, tally)
    tally.without(item, HELD, why=WHY)
    words = [f"{_quoted(name)}={_quoted(value)}" for name, value in info.items()]
    comment = f"Properties=species:S:1:{':'.join(names)} {' '.join(words)}"
    return f"{len(structure)}\n{comment}\n".encode() + _rows(structure.atomic_numbers, blocks)


def _structure_info(item: ExportItem) -> dict[str, str]:
    structure = item.structure
    info: dict[str, str] = {}
    if structure.cell.any():
        info["Lattice"] = _numbers(structure.cell)
    info["pbc"] = " ".join("T" if periodic else "F" for periodic in structure.pbc)
    info.update(frame_id=item.external_id, material_id=item.material, source=item.source)
    if structure.charge is not None:
        info["charge"] = repr(structure.charge)
    if structure.spin_multiplicity is not None:
        info["spin_multiplicity"] = str(structure.spin_multiplicity)
    if item.part is not None:
        info["split"] = item.part
    if item.tags or item.row is not None:
        more = {"tags": dict(item.tags)} | ({} if item.row is None else {"row": item.row})
        info["mlipdb"] = f"_JSON {orjson.dumps(more, option=orjson.OPT_SORT_KEYS).decode()}"  # ASE reads it as a dict
    return info


def _label_info(label: Label, prefix: str, *, energy: str | None, tally: Tally) -> dict[str, str]:
    info: dict[str, str] = {}
    for kind, name in OTHER_ENERGIES.items():
        value = getattr(label, kind)
        if value is not None:
            info[prefix + ("energy" if kind == energy else name)] = repr(float(value))
    if label.band_gap is not None:
        info[f"{prefix}band_gap"] = repr(float(label.band_gap))
    if label.stress is not None:
        info[f"{prefix}stress"] = _numbers(label.stress)
    for name, number in label.properties.items():
        if name in RESERVED:
            tally.lose(f"property {name}", "that name means something else in extended XYZ")
        else:
            info[prefix + name] = repr(float(number))
    return info


def _count_flag(label: Label, energy: str | None, tally: Tally) -> None:
    """Atomic energies say by their sum whether E0 is inside; where they do not, that is lost."""
    if label.atomic_energies is None or label.atomic_energies_include_e0 is None:
        return
    total = None if energy is None else getattr(label, energy)
    adds_up = total is not None and bool(np.isclose(label.atomic_energies.sum(), total, rtol=1e-6, atol=1e-6))
    if adds_up != label.atomic_energies_include_e0:
        tally.lose("atomic_energies_include_e0", WHY)


def _numbers(values: np.ndarray) -> str:
    return " ".join(map(repr, values.ravel().tolist()))


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\r\n\t]", " ", text) + '"'


def _rows(numbers: np.ndarray, blocks: list[np.ndarray]) -> bytes:
    """A line for each atom. orjson writes the shortest digits that read back as the same double."""
    table = np.ascontiguousarray(np.concatenate(blocks, axis=1), dtype=np.float64)
    text = orjson.dumps(table, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2]
    rows = text.replace(b"],[", b"\n").replace(b",", b" ").split(b"\n")
    return b"".join(b"%s %s\n" % (SYMBOLS[number].encode(), row) for number, row in zip(numbers, rows, strict=True))
