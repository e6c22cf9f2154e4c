"""Records of format 1, which are read but no longer written: a structure with its source's label, or a label alone.

Layout: 8 bytes of header (magic ``Ml``, version, flags, CRC-32), then one zstd frame. The CRC covers the key, the
header's first four bytes and the frame, so a record under another key or a flipped bit is found. Inside the frame:
counts of atoms and Hessian rows and a bit mask of the fields present, one byte of form for each group of float arrays,
then the fields in the order of FIELDS as little-endian bytes. Numbers come back bit for bit.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import zstandard

from mlipdb.errors import CorruptError
from mlipdb.labels import Label
from mlipdb.store.decimals import decode_floats
from mlipdb.store.record import PERIODIC, Record, includes_e0
from mlipdb.structures import Structure

HEADER = struct.Struct("<2sBBI")
COUNTS = struct.Struct("<III")

# Names that most records repeat; part of the format.
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


class DecoderV1:
    """Reads record bytes of format 1. Holds a decompressor, so one per thread."""

    def __init__(self) -> None:
        self._decompress = zstandard.ZstdDecompressor(dict_data=DICTIONARY).decompress

    def decode(self, key: bytes, data: bytes) -> Record:
        """The record stored under a key (the structure id, 8 bytes big-endian).

        Raises CorruptError where its checksum or its length does not fit.
        """
        frame = data[8:]
        flags = _check_header(key, data, frame)
        try:
            fields = _unpack(self._decompress(frame))
        except (zstandard.ZstdError, ValueError, struct.error, KeyError) as error:
            raise CorruptError(f"record {int.from_bytes(key)}: {error}; run `mlipdb verify --deep`") from error
        return Record(_structure(fields, flags, int.from_bytes(key)), _label(fields, flags))


def _check_header(key: bytes, data: bytes, frame: bytes) -> int:
    _, _, flags, checksum = HEADER.unpack_from(data)
    if zlib.crc32(frame, zlib.crc32(key + data[:4])) != checksum:
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
    return Label(atomic_energies_include_e0=includes_e0(flags), **fields)  # type: ignore[arg-type]
