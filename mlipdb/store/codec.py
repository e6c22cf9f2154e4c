"""Record bytes, version 1: a structure and the label that came with it, or a label alone.

Layout: 8 bytes of header (magic ``Ml``, version, flags, CRC-32), then one zstd frame. The CRC covers the key, the
header's first four bytes and the frame, so a record under another key or a flipped bit is found. Inside the frame:
counts of atoms and Hessian rows and a bit mask of the fields present, one byte of form for each group of float arrays,
then the fields in the order of FIELDS as little-endian bytes. Numbers come back bit for bit.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import zstandard

from mlipdb.errors import CorruptError
from mlipdb.labels import Label
from mlipdb.store.decimals import decode_floats, encode_floats
from mlipdb.structures import Structure

FORMAT_VERSION = 1
LEVEL = 3
MAGIC = b"Ml"
HEADER = struct.Struct("<2sBBI")
COUNTS = struct.Struct("<III")

# Names that most records repeat; part of the format: changing it needs a new version.
DICTIONARY = zstandard.ZstdCompressionDict(
    b"energy_per_atom\0ef_per_atom\0e_per_atom_relaxed\0ef_per_atom_relaxed" * 2,
    dict_type=zstandard.DICT_TYPE_RAWCONTENT,
)

SCALARS = (
    "charge", "spin_multiplicity", "energy_uncorrected", "energy_corrected", "free_energy", "energy_zero", "band_gap",
)  # fmt: skip
# Arrays of one group are joined and take one form: fewer calls a record, and these are alike (decimals of a code).
GROUPS = (("cell", "positions", "forces", "magmoms"), ("atomic_energies",), ("hessian_rows",))
FIELDS = (
    *SCALARS, "hessian_row_numbers", "atomic_numbers", "stress", *(name for group in GROUPS for name in group),
    "properties",
)  # fmt: skip
SHAPES: dict[str, Callable[[int, int], tuple[int, ...]]] = {
    "cell": lambda _natoms, _rows: (3, 3),
    "positions": lambda natoms, _rows: (natoms, 3),
    "forces": lambda natoms, _rows: (natoms, 3),
    "magmoms": lambda natoms, _rows: (natoms,),
    "atomic_energies": lambda natoms, _rows: (natoms,),
    "hessian_rows": lambda natoms, rows: (rows, natoms, 3),
}
BIT = {name: 1 << place for place, name in enumerate(FIELDS)}
STRUCTURE_MASK = BIT["atomic_numbers"] | BIT["cell"] | BIT["positions"]
HAS_E0_FLAG, E0_INCLUDED = 8, 16
PERIODIC = tuple((bool(mask & 1), bool(mask & 2), bool(mask & 4)) for mask in range(8))


@dataclass(frozen=True, eq=False)
class Record:
    """What one record holds; structure is None in a shard of kind ``labels``."""

    structure: Structure | None
    label: Label | None


@dataclass(frozen=True)
class Layout:
    """Which fields a bit mask stands for, worked out once per mask."""

    scalars: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    has: frozenset[str]
    unpack_scalars: struct.Struct


@lru_cache(maxsize=4096)
def _layout(mask: int) -> Layout:
    present = frozenset(name for name in FIELDS if mask & BIT[name])
    scalars = tuple(name for name in SCALARS if name in present)
    groups = (tuple(name for name in group if name in present) for group in GROUPS)
    return Layout(scalars, tuple(group for group in groups if group), present, struct.Struct(f"<{len(scalars)}d"))


@dataclass(frozen=True)
class Encoded:
    """A record without its checksum: the header's first four bytes and the compressed frame."""

    start: bytes
    frame: bytes


class Encoder:
    """Makes record bytes. Holds a compressor, so one per thread."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, dict_data=DICTIONARY)

    def encode(self, key: bytes, structure: Structure | None, label: Label | None) -> bytes:
        """Bytes of a structure, a label or both; at least one must be given."""
        return seal(key, self.prepare(structure, label))

    def prepare(self, structure: Structure | None, label: Label | None) -> Encoded:
        """All of a record's bytes but its checksum, which covers the key. natoms comes from the arrays."""
        fields = _collect(structure, label)
        natoms = len(structure) if structure is not None else _natoms(fields)
        rows = label.hessian_row_numbers if label is not None else None
        mask = sum(BIT[name] for name in fields)
        frame = self._compressor.compress(_pack(fields, mask, natoms, 0 if rows is None else len(rows)))
        return Encoded(HEADER.pack(MAGIC, FORMAT_VERSION, _flags(structure, label), 0)[:4], frame)


def seal(key: bytes, record: "Encoded") -> bytes:
    """The bytes to store under a key."""
    return record.start + struct.pack("<I", _checksum(key, record.start, record.frame)) + record.frame


def _collect(structure: Structure | None, label: Label | None) -> dict[str, object]:
    """The fields that are present, by name."""
    fields: dict[str, object] = {}
    if structure is not None:
        fields.update(atomic_numbers=structure.atomic_numbers, cell=structure.cell, positions=structure.positions)
        fields.update(charge=structure.charge, spin_multiplicity=structure.spin_multiplicity)
    if label is not None:
        fields.update((name, getattr(label, name)) for name in FIELDS if name in Label.__dataclass_fields__)
        fields["properties"] = label.properties or None
    return {name: value for name, value in fields.items() if value is not None}


def _natoms(fields: Mapping[str, object]) -> int:
    """Atoms of a label without its structure; 0 when it has no array per atom."""
    for name, axis in (("forces", 0), ("atomic_energies", 0), ("magmoms", 0), ("hessian_rows", 1)):
        if name in fields:
            return int(np.shape(fields[name])[axis])  # type: ignore[call-overload]  # an array by the table above
    return 0


def _flags(structure: Structure | None, label: Label | None) -> int:
    flags = 0
    if structure is not None:
        flags |= sum(1 << axis for axis, periodic in enumerate(structure.pbc) if periodic)
    if label is not None and label.atomic_energies_include_e0 is not None:
        flags |= HAS_E0_FLAG | (E0_INCLUDED if label.atomic_energies_include_e0 else 0)
    return flags


def _pack(fields: Mapping[str, object], mask: int, natoms: int, rows: int) -> bytes:
    layout = _layout(mask)
    forms = bytearray()
    body = [layout.unpack_scalars.pack(*(fields[name] for name in layout.scalars))]
    if "hessian_row_numbers" in fields:
        body.append(np.asarray(fields["hessian_row_numbers"], "<i4").tobytes())
    if "atomic_numbers" in fields:
        body.append(np.asarray(fields["atomic_numbers"], np.uint8).tobytes())
    if "stress" in fields:  # nine numbers after a unit conversion: no decimals to find
        body.append(np.asarray(fields["stress"], "<f8").tobytes())
    for group in layout.groups:
        flat = [np.asarray(fields[name], np.float64).reshape(-1) for name in group]
        form, data = encode_floats(np.concatenate(flat))
        forms.append(form)
        body.append(data)
    if "properties" in fields:
        body.append(_pack_properties(fields["properties"]))  # type: ignore[arg-type]  # a mapping by its name
    return b"".join((COUNTS.pack(natoms, rows, mask), bytes(forms), *body))


def _pack_properties(properties: Mapping[str, float]) -> bytes:
    names = "\0".join(properties).encode()
    return struct.pack("<H", len(names)) + names + np.array(list(properties.values()), "<f8").tobytes()


def _checksum(key: bytes, start: bytes, frame: bytes) -> int:
    return zlib.crc32(frame, zlib.crc32(key + start))


class Decoder:
    """Reads record bytes. Holds a decompressor, so one per thread."""

    def __init__(self) -> None:
        self._decompress = zstandard.ZstdDecompressor(dict_data=DICTIONARY).decompress

    def decode(self, key: bytes, data: bytes) -> Record:
        """The record stored under a key (the structure id, 8 bytes big-endian).

        Raises CorruptError that says what does not fit: magic, version, checksum or length.
        """
        frame = data[8:]
        flags = _check_header(key, data, frame)
        try:
            fields = _unpack(self._decompress(frame))
        except (zstandard.ZstdError, ValueError, struct.error, KeyError) as error:
            raise CorruptError(f"record {int.from_bytes(key)}: {error}; run `mlipdb verify --deep`") from error
        return Record(_structure(fields, flags, int.from_bytes(key)), _label(fields, flags))


def _check_header(key: bytes, data: bytes, frame: bytes) -> int:
    if len(data) < 16:
        raise CorruptError(f"record {int.from_bytes(key)} has {len(data)} bytes; it is cut off")
    magic, version, flags, checksum = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CorruptError(f"record {int.from_bytes(key)} begins with {magic!r}, not {MAGIC!r}; it is no mlipdb record")
    if version != FORMAT_VERSION:
        raise CorruptError(
            f"record {int.from_bytes(key)} has format version {version}; this mlipdb reads {FORMAT_VERSION}; upgrade it"
        )
    if _checksum(key, data[:4], frame) != checksum:
        raise CorruptError(
            f"record {int.from_bytes(key)} fails its checksum; run `mlipdb verify --deep` for the extent"
        )
    return int(flags)


def _unpack(raw: bytes) -> dict[str, object]:
    natoms, rows, mask = COUNTS.unpack_from(raw)
    layout = _layout(mask)
    place = 12 + len(layout.groups)
    forms = raw[12:place]
    fields: dict[str, object] = dict(zip(layout.scalars, layout.unpack_scalars.unpack_from(raw, place), strict=True))
    place += layout.unpack_scalars.size
    if "hessian_row_numbers" in layout.has:
        fields["hessian_row_numbers"] = np.frombuffer(raw, "<i4", rows, place).astype(np.int32)
        place += 4 * rows
    if "atomic_numbers" in layout.has:
        fields["atomic_numbers"] = np.frombuffer(raw, np.uint8, natoms, place)
        place += natoms
    if "stress" in layout.has:
        fields["stress"] = np.frombuffer(raw, "<f8", 9, place).reshape(3, 3).copy()
        place += 72
    for group, form in zip(layout.groups, forms, strict=True):
        place = _unpack_group(fields, group, raw=raw, form=form, place=place, natoms=natoms, rows=rows)
    if "properties" in layout.has:
        fields["properties"], place = _unpack_properties(raw, place)
    if place != len(raw):
        raise ValueError(f"{len(raw)} bytes where its fields need {place}")
    return fields


def _unpack_group(
    fields: dict[str, object], group: tuple[str, ...], *, raw: bytes, form: int, place: int, natoms: int, rows: int
) -> int:
    """Put the arrays of one group into fields as views of one buffer; the byte after the group."""
    places, size = _group_places(group, natoms, rows)
    flat, place = decode_floats(form, raw, place, size)
    for name, start, end, shape in places:
        fields[name] = flat[start:end].reshape(shape)
    return place


@lru_cache(maxsize=65536)
def _group_places(
    group: tuple[str, ...], natoms: int, rows: int
) -> tuple[tuple[tuple[str, int, int, tuple[int, ...]], ...], int]:
    """Name, begin, end and shape of each array of a group, and the size of all."""
    places, start = [], 0
    for name in group:
        shape = SHAPES[name](natoms, rows)
        places.append((name, start, start + prod(shape), shape))
        start += prod(shape)
    return tuple(places), start


def _unpack_properties(raw: bytes, place: int) -> tuple[dict[str, float], int]:
    start = place + 2
    end = start + int.from_bytes(raw[place:start], "little")
    names, numbers = _property_names(raw[start:end])
    return dict(zip(names, numbers.unpack_from(raw, end), strict=True)), end + numbers.size


@lru_cache(maxsize=4096)
def _property_names(data: bytes) -> tuple[tuple[str, ...], struct.Struct]:
    """Names from their bytes, and what reads as many numbers; a source repeats them in every record."""
    names = tuple(data.decode().split("\0"))
    return names, struct.Struct(f"<{len(names)}d")


def _structure(fields: dict[str, object], flags: int, identity: int) -> Structure | None:
    """Take the structure's fields out of the record's."""
    if "atomic_numbers" not in fields:
        return None
    spin = fields.pop("spin_multiplicity", None)
    return Structure(
        fields.pop("atomic_numbers"),  # type: ignore[arg-type]  # types are those of FIELDS
        fields.pop("positions"),  # type: ignore[arg-type]
        fields.pop("cell"),  # type: ignore[arg-type]
        PERIODIC[flags & 7],
        fields.pop("charge", None),  # type: ignore[arg-type]
        None if spin is None else int(spin),  # type: ignore[call-overload]
        identity,
    )


def _label(fields: dict[str, object], flags: int) -> Label | None:
    """A label of what is left, or None."""
    if not fields:
        return None
    included = bool(flags & E0_INCLUDED) if flags & HAS_E0_FLAG else None
    return Label(atomic_energies_include_e0=included, **fields)  # type: ignore[arg-type]
