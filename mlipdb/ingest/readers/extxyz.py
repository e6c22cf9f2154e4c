"""Extended XYZ, plain or gzip, frame by frame, with keys and units that the user declares or the file states."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
from jaxtyping import Float64

from mlipdb.errors import ConfigError, IngestError, MlipdbError, did_you_mean
from mlipdb.ingest.extxyz_text import FrameError, RawFrame, floats, raw_frames
from mlipdb.ingest.reader import Frame, Rejected, checked_row
from mlipdb.ingest.stream import ByteStream
from mlipdb.ingest.units_of import DIMENSIONS, canonical, checked_units, to_internal
from mlipdb.labels import Label
from mlipdb.structures import ATOMIC_NUMBERS, Structure, make_structure

# Names under which files hold each quantity. Two that are present and differ are an error: --key says which.
INFO_NAMES: dict[str, tuple[str, ...]] = {
    "energy": ("energy", "REF_energy", "DFT_energy", "dft_energy", "total_energy", "uncorrected_total_energy"),
    "energy_corrected": ("mp2020_corrected_energy", "corrected_total_energy", "energy_corrected"),
    "free_energy": ("free_energy", "REF_free_energy"),
    "energy_zero": ("energy_zero", "energy_sigma_0"),
    "band_gap": ("band_gap", "bandgap"),
    "stress": ("stress", "REF_stress", "DFT_stress", "dft_stress"),
    "virial": ("virial", "virials", "REF_virial", "REF_virials", "dft_virial"),
    "charge": ("charge", "total_charge"),
    "spin_multiplicity": ("spin_multiplicity", "multiplicity"),
    "material": ("material_id", "mp_id", "mptrj_traj_id", "alexandria_id"),
    "id": ("frame_id", "mptrj_snapshot_id"),
}
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "forces": ("forces", "force", "REF_forces", "DFT_forces", "dft_forces"),
    "magmoms": ("magmoms", "magmom", "REF_magmoms"),
    "atomic_energies": ("energies", "atomic_energies", "REF_energies"),
}
TAG_NAMES = ("split", "subset", "dataset", "data_id", "config_type")
OWN = "mlipdb"  # what an export of ours adds: tags and row, as JSON
UNIT_OF: dict[str, str] = {
    "energy": "energy",
    "energy_corrected": "energy",
    "free_energy": "energy",
    "energy_zero": "energy",
    "virial": "energy",
    "atomic_energies": "energy",
}
DEFAULT_UNITS: dict[str, str] = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³", "positions": "Å"}
TASK_KEYS = ("task_id", "calc_id", "ionic_step")
_NOT_PROPERTIES = frozenset(("Lattice", "Properties", "pbc", *TASK_KEYS, *chain(*INFO_NAMES.values())))
_ROW = re.compile(rb"\s*[A-Z][a-z]?(\s+[-+]?[\d.]+([eE][-+]?\d+)?){3}")
_SPLIT = re.compile(r"[\s,\[\]{}]+")
_PEEK = 64  # frames in which a declared key must occur at least once
_VOIGT = ((0, 5, 4), (5, 1, 3), (4, 3, 2))  # xx yy zz yz xz xy
_TRUE, _FALSE = ("T", "True", "true", "1", "TRUE"), ("F", "False", "false", "0", "FALSE")


class ExtxyzReader:
    """Extended XYZ text. Where neither --unit nor the file says: eV, Å, eV/Å, eV/Å³, stress positive in tension."""

    name: ClassVar[str] = "extxyz"
    suffixes: ClassVar[tuple[str, ...]] = (".extxyz", ".xyz", ".extxyz.gz", ".xyz.gz", ".xyz.bz2", ".xyz.xz")

    def claims(self, path: Path, head: bytes) -> str | None:
        """A number of atoms, a comment line with Properties or Lattice; plain XYZ by its first row."""
        count, comment, row, _ = (*head.split(b"\n", 3), b"", b"", b"", b"")[:4]
        if not count.strip().isdigit():
            return None
        if b"properties=" in comment.lower() or b"lattice=" in comment.lower():
            return f"its first line is a number of atoms ({int(count)}), its second holds Properties or Lattice"
        return f"its first line is a number of atoms ({int(count)}), its third an atom" if _ROW.match(row) else None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield frames in file order.

        options: ``keys`` and ``units`` (quantity to name; ``tags`` to the words that are tags, by commas), ``source``
        (prefix of materials that the file does not name), ``digest``, ``file`` (the file's name in its source, else
        its own). A frame's id is the file's frame_id, or task_id-calc_id-ionic_step, or the file's name and the
        frame's index. Raises IngestError where two candidates for a quantity differ.
        """
        keys = _checked_keys(options.get("keys", {}))
        tags = tuple(keys.pop("tags").split(",")) if "tags" in keys else TAG_NAMES
        units = checked_units(options.get("units", {}))
        stem = _stem(str(options.get("file") or path.name))
        meaning = _Meaning(path, keys, units, stem, str(options.get("source") or stem), tags)
        with ByteStream(path, options.get("digest")) as stream:
            for raw in _looked_over(raw_frames(stream), meaning):
                yield meaning.frame(raw)


def _looked_over(frames: Iterator[RawFrame], meaning: "_Meaning") -> Iterator[RawFrame]:
    """The same frames, after the first few were searched for the keys that the user declared."""
    ahead: list[RawFrame] = []
    fault = None
    try:
        ahead.extend(islice(frames, _PEEK))
    except IngestError as error:
        fault = error
    meaning.check_declared(ahead)
    yield from ahead
    if fault is not None:
        raise fault
    yield from frames


def _checked_keys(declared: Mapping[str, str]) -> dict[str, str]:
    known = (*INFO_NAMES, *COLUMN_NAMES, "tags")
    for quantity in declared:
        if quantity not in known:
            raise ConfigError(
                f"--key {quantity}: no such quantity.{did_you_mean(quantity, known)} Known: {', '.join(known)}"
            )
    return dict(declared)


def _stem(name: str) -> str:
    return re.sub(r"\.(ext)?xyz(\.(gz|bz2|xz|zst))?$", "", name)


@dataclass(frozen=True)
class _Meaning:
    """Turns text into a frame: which key is which quantity, in which unit."""

    path: Path
    keys: dict[str, str]
    units: dict[str, str]
    stem: str
    source: str
    tags: tuple[str, ...] = TAG_NAMES

    def check_declared(self, frames: Sequence[RawFrame]) -> None:
        """Raise IngestError for a declared key that none of the first frames has: it is most likely misspelt."""
        present = {name for raw in frames for name in (*raw.info, *_column_names(raw))}
        for quantity, name in self.keys.items():
            if frames and name not in present:
                raise IngestError(
                    f"{self.path}: --key {quantity}={name}: none of the first {len(frames)} frames has {name!r}."
                    f"{did_you_mean(name, present)} They have: {', '.join(sorted(present))}"
                )

    def frame(self, raw: RawFrame) -> Frame | Rejected:
        """The frame, or why it cannot be taken."""
        location = f"frame {raw.index}"
        key, material = self._names(raw)
        try:
            columns = raw.columns()
            structure = self._structure(raw, columns)
            label = self._label(raw, columns, structure)
            tags, row = self._tags(raw)
        except IngestError:
            raise
        except MlipdbError as error:
            return Rejected(key=key, location=location, reason=str(error))
        names = {"external_id": key, "material": material, "location": location}
        return Frame(structure=structure, label=label, tags=tags, row=row, **names)

    def _tags(self, raw: RawFrame) -> tuple[dict[str, str], int | None]:
        """Words of the comment line that are for tags; tags and row that an export of ours kept."""
        tags = {name: raw.info[name] for name in self.tags if name in raw.info}
        if OWN not in raw.info:
            return tags, None
        try:
            own = orjson.loads(raw.info[OWN].removeprefix("_JSON "))
            kept, row = {str(name): str(value) for name, value in own.get("tags", {}).items()}, own.get("row")
            row = None if row is None else checked_row(row)
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise FrameError(
                f"{OWN}={raw.info[OWN][:80]!r} is not what an export of mlipdb writes ({error})"
            ) from error
        return tags | kept, row

    def _names(self, raw: RawFrame) -> tuple[str, str]:
        """The frame's own id and its material; a frame that names no material is a material of its own."""
        key = self._text("id", raw)
        if key is None and all(name in raw.info for name in TASK_KEYS):
            key = "-".join(raw.info[name] for name in TASK_KEYS)
        key = key or f"{self.stem}-{raw.index}"
        return key, self._text("material", raw) or f"{self.source}/{key}"

    def _structure(self, raw: RawFrame, columns: dict[str, list[list[bytes]]]) -> Structure:
        if "pos" not in columns or len(columns["pos"]) != 3:
            raise FrameError("Properties name no pos:R:3")
        unit = self._unit("positions", raw)
        lattice = raw.info.get("Lattice")
        cell = None if lattice is None else to_internal(_numbers(lattice, "Lattice", sizes=(9,)).reshape(3, 3), unit)
        periodic = (cell is not None,) * 3 if "pbc" not in raw.info else _flags(raw.info["pbc"])
        charge, multiplicity = self._scalar("charge", raw), self._scalar("spin_multiplicity", raw)
        return make_structure(
            _atomic_numbers(columns),
            to_internal(_block(columns, "pos"), unit),
            cell=cell,
            pbc=periodic,
            charge=charge,
            spin_multiplicity=multiplicity,
        )

    def _label(self, raw: RawFrame, columns: dict[str, list[list[bytes]]], structure: Structure) -> Label | None:
        energy = self._scalar("energy", raw)
        atomic = self._column("atomic_energies", raw, columns, width=1)
        label = Label(
            energy_uncorrected=energy,
            energy_corrected=self._scalar("energy_corrected", raw),
            free_energy=self._scalar("free_energy", raw),
            energy_zero=self._scalar("energy_zero", raw),
            band_gap=self._scalar("band_gap", raw),
            forces=self._column("forces", raw, columns, width=3),
            stress=self._stress(raw, structure),
            magmoms=self._column("magmoms", raw, columns, width=1),
            atomic_energies=atomic,
            # Energies of atoms that add up to the total hold the atoms' own energies; else the file does not say.
            atomic_energies_include_e0=True if atomic is not None and _adds_up(atomic, energy) else None,
            properties=self._properties(raw),
        )
        return label if _has_content(label) else None

    def _stress(self, raw: RawFrame, structure: Structure) -> Float64[np.ndarray, "3 3"] | None:
        """Stress in eV/Å³, positive under tension, from a stress or from a virial (-stress · volume).

        None without three periodic directions, where it has no meaning.
        """
        stress, virial = self._tensor("stress", raw), self._tensor("virial", raw)
        if structure.volume is None:
            return None
        if virial is None:
            return stress
        from_virial = -virial / structure.volume
        if stress is not None and not np.allclose(stress, from_virial, rtol=1e-4, atol=1e-6):
            self._differ(raw, "stress", {"stress": stress, "virial": from_virial})
        return from_virial if stress is None else stress

    def _tensor(self, quantity: str, raw: RawFrame) -> Float64[np.ndarray, "3 3"] | None:
        """A symmetric tensor from 9 numbers, or from 6 in the order xx yy zz yz xz xy."""
        text = self._text(quantity, raw)
        if text is None:
            return None
        values = to_internal(_numbers(text, quantity, sizes=(6, 9)), self._unit(UNIT_OF.get(quantity, quantity), raw))
        tensor = values[np.array(_VOIGT)] if len(values) == 6 else values.reshape(3, 3)
        if not np.allclose(tensor, tensor.T, rtol=1e-3, atol=1e-3 * max(1e-3, float(np.abs(tensor).max()))):
            raise FrameError(f"{quantity} is not symmetric: {text!r}")
        return tensor

    def _properties(self, raw: RawFrame) -> dict[str, float]:
        """Every other finite number of the comment line."""
        skip = _NOT_PROPERTIES | set(self.keys.values()) | set(self.tags)
        found = {}
        for name, text in raw.info.items():
            if name not in skip and (number := _maybe_number(text)) is not None:
                found[name] = number
        return found

    def _scalar(self, quantity: str, raw: RawFrame) -> float | None:
        text = self._text(quantity, raw)
        if text is None or text.lower() in ("none", "null", ""):
            return None
        value = float(_numbers(text, quantity, sizes=(1,))[0])
        return to_internal(value, self._unit("energy", raw)) if UNIT_OF.get(quantity) == "energy" else value

    def _column(
        self, quantity: str, raw: RawFrame, columns: dict[str, list[list[bytes]]], *, width: int
    ) -> Float64[np.ndarray, "atoms ..."] | None:
        found = {name: _block(columns, name) for name in self._present(quantity, columns)}
        if not found:
            return None
        values = list(found.values())
        if any(not np.array_equal(values[0], other) for other in values[1:]):
            self._differ(raw, quantity, found)
        if values[0].shape != ((raw.natoms, width) if width > 1 else (raw.natoms, 1)):
            raise FrameError(f"{next(iter(found))} has {values[0].shape[1]} columns; expected {width}")
        value = values[0] if width > 1 else values[0][:, 0]
        unit = UNIT_OF.get(quantity, quantity)
        return to_internal(value, self._unit(unit, raw)) if unit in DEFAULT_UNITS else value

    def _text(self, quantity: str, raw: RawFrame) -> str | None:
        """The text of a quantity; IngestError where two names hold different values."""
        found = {name: raw.info[name] for name in self._present(quantity, raw.info)}
        if len({_maybe_number(text) or text for text in found.values()}) > 1:
            self._differ(raw, quantity, found)
        return next(iter(found.values()), None)

    def _present(self, quantity: str, names: Mapping[str, Any]) -> list[str]:
        known = INFO_NAMES.get(quantity) or COLUMN_NAMES[quantity]
        candidates = (self.keys[quantity],) if quantity in self.keys else known
        taken = {name for other, name in self.keys.items() if other != quantity}
        return [name for name in candidates if name in names and name not in taken]

    def _differ(self, raw: RawFrame, quantity: str, found: Mapping[str, Any]) -> None:
        shown = "; ".join(f"{name} is {_short(value)}" for name, value in found.items())
        choices = " or ".join(f"--key {quantity if name != 'virial' else 'virial'}={name}" for name in found)
        raise IngestError(
            f"{self.path}: frame {raw.index}: {len(found)} keys could be the {quantity} and they differ: {shown}. "
            f"Say which with {choices}"
        )

    def _unit(self, quantity: str, raw: RawFrame) -> str:
        """The unit of a quantity: the user's, else the file's own statement, else ASE's."""
        if quantity in self.units:
            return self.units[quantity]
        stated = raw.info.get(f"{quantity}_unit")
        unit = canonical(stated) if stated else DEFAULT_UNITS[quantity]
        if unit is None or unit not in DIMENSIONS[quantity]:
            raise FrameError(
                f"{quantity}_unit={stated} is no known unit of {quantity}; declare it with --unit {quantity}=… "
                f"({', '.join(DIMENSIONS[quantity])})"
            )
        return unit


def _column_names(raw: RawFrame) -> list[str]:
    return raw.info.get("Properties", "").split(":")[::3]


def _block(columns: dict[str, list[list[bytes]]], name: str) -> Float64[np.ndarray, "atoms width"]:
    return np.stack([floats(tokens, name) for tokens in columns[name]], axis=1)


def _atomic_numbers(columns: dict[str, list[list[bytes]]]) -> list[int]:
    name = next((name for name in ("species", "Z", "numbers", "atomic_numbers") if name in columns), None)
    if name is None:
        raise FrameError("Properties name no species (and no Z)")
    words = [token.decode(errors="replace") for token in columns[name][0]]
    numbers = [int(word) if word.isdigit() else ATOMIC_NUMBERS.get(word, 0) for word in words]
    if 0 in numbers:
        raise FrameError(f"{words[numbers.index(0)]!r} in row {numbers.index(0)} is not an element")
    return numbers


def _numbers(text: str, name: str, *, sizes: tuple[int, ...]) -> Float64[np.ndarray, " numbers"]:
    words = [word for word in _SPLIT.split(text.removeprefix("_JSON ")) if word]
    if len(words) not in sizes:
        raise FrameError(f"{name}={text!r} holds {len(words)} numbers; expected {' or '.join(map(str, sizes))}")
    return floats([word.encode() for word in words], name)


def _flags(text: str) -> tuple[bool, bool, bool]:
    words = [word for word in _SPLIT.split(text) if word]
    if len(words) == 1:
        words *= 3
    if len(words) != 3 or not set(words) <= {*_TRUE, *_FALSE}:
        raise FrameError(f"pbc={text!r}; expected three of T and F")
    return words[0] in _TRUE, words[1] in _TRUE, words[2] in _TRUE


def _maybe_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _adds_up(atomic: Float64[np.ndarray, " atoms"], energy: float | None) -> bool:
    return energy is not None and math.isclose(float(atomic.sum()), energy, rel_tol=1e-6, abs_tol=1e-6)


def _has_content(label: Label) -> bool:
    named = (value for name, value in vars(label).items() if name not in ("properties", "method", "method_id"))
    return any(value is not None for value in named) or bool(label.properties)


def _short(value: Any) -> str:
    return str(value) if isinstance(value, str) else np.array2string(np.asarray(value).ravel()[:3], precision=6)
