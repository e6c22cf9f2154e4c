"""Where the parts of a record of format 2 lie.

A record is four bytes of header (magic ``Ml``, version, flags), one zstd frame, and a CRC-32 over all before it that
starts from the structure id; so a flipped bit or a record under another key is found. Inside the frame: counts of atoms
and Hessian rows; the signature (a bit mask of the fields, one byte of form for each float array, names of properties);
Hessian row numbers; for each array what stands for its values; atomic numbers; distances; values in full.
"""

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Int64

from mlipdb.store.floats import KIND, NEAR8, NEAR16, SYMMETRIC, widths

VERSION = 2
HEADER = struct.Struct("<2sBB")
HEAD = struct.Struct("<IIH")  # atoms, Hessian rows, bytes of the signature
RESIDUE = 0x2144DF1C  # a CRC-32 over bytes that end with their own CRC-32

SCALARS = (
    "charge", "spin_multiplicity", "energy_uncorrected", "energy_corrected", "free_energy", "energy_zero", "band_gap",
)  # fmt: skip
# Float arrays in the order of the record; scalars and properties are joined into one array each. The cell comes before
# the positions, which may be fractions of it.
ARRAYS = (
    "scalars", "properties", "cell", "positions", "forces", "stress", "magmoms", "atomic_energies", "hessian_rows",
)  # fmt: skip
BIT = {name: 1 << place for place, name in enumerate((*SCALARS, "hessian_row_numbers", "atomic_numbers", *ARRAYS[1:]))}
# How many values an array has: once a record, once an atom, once a Hessian row and atom.
SIZES = {
    "cell": (9, 0, 0), "positions": (0, 3, 0), "forces": (0, 3, 0), "magmoms": (0, 1, 0), "atomic_energies": (0, 1, 0),
    "hessian_rows": (0, 0, 3),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Part:
    """An array of a record: its form and where it lies. Places are dot products with (1, atoms, rows * atoms, rows)."""

    field: str
    form: int
    size: tuple[int, ...]
    main: tuple[tuple[int, ...], tuple[int, ...]]
    near: tuple[tuple[int, ...], tuple[int, ...]] | None


@dataclass(frozen=True, eq=False)
class Layout:
    """What a signature means: the parts in their order, and where the rest lies."""

    scalars: tuple[str, ...]
    properties: tuple[str, ...]
    parts: tuple[Part, ...]
    row_numbers: tuple[int, ...] | None
    atomic_numbers: tuple[tuple[int, ...], tuple[int, ...]] | None
    full: tuple[int, ...]

    @cached_property
    def table(self) -> Int64[np.ndarray, "fields 13"]:
        """For each of ARRAYS: form (-1 where it is absent), size, places of what stands for values and of distances."""
        rows = np.full((len(ARRAYS), 13), -1, np.int64)
        for part in self.parts:
            near = (0, 0, 0, 0) if part.near is None else part.near[0]
            rows[ARRAYS.index(part.field)] = (part.form, *part.size, *part.main[0], *near)
        return rows


def seed(structure_id: int) -> int:
    """Where the CRC of a record under this id starts."""
    return (structure_id ^ structure_id >> 32) & 0xFFFFFFFF


def close(data: bytes, structure_id: int) -> bytes:
    """A record's bytes with their CRC behind them."""
    return data + zlib.crc32(data, seed(structure_id)).to_bytes(4, "little")


@lru_cache(maxsize=65536)
def layout_of(signature: bytes) -> Layout:
    """The layout that a signature names; ValueError when it names none."""
    mask = int.from_bytes(signature[:4], "little")
    scalars = tuple(name for name in SCALARS if mask & BIT[name])
    fields = [name for name in ARRAYS if (scalars if name == "scalars" else mask & BIT[name])]
    if mask >> len(BIT) or len(signature) < 4 + len(fields):
        raise ValueError(f"signature {signature.hex()} names fields that this format does not have")
    names = signature[4 + len(fields) :].decode()
    properties = tuple(names.split("\0")) if mask & BIT["properties"] else ()
    return _Walk(len(signature), scalars, properties).layout(mask, fields, signature[4 : 4 + len(fields)])


class _Walk:
    """Goes through a record's payload and notes where things begin."""

    def __init__(self, signature: int, scalars: tuple[str, ...], properties: tuple[str, ...]) -> None:
        self._scalars, self._properties = scalars, properties
        self._place = np.array([HEAD.size + signature, 0, 0, 0])

    def layout(self, mask: int, fields: list[str], forms: bytes) -> Layout:
        row_numbers = self._take([0, 0, 0, 4])[0] if mask & BIT["hessian_row_numbers"] else None
        sizes = [self._size(name, form) for name, form in zip(fields, forms, strict=True)]
        mains = [
            self._take(size * widths(field)[form & KIND])
            for field, size, form in zip(fields, sizes, forms, strict=True)
        ]
        numbers = self._take([0, 1, 0, 0]) if mask & BIT["atomic_numbers"] else None
        steps = [1 if form & NEAR8 else 2 if form & NEAR16 else 0 for form in forms]
        nears = [self._take(size * width) if width else None for size, width in zip(sizes, steps, strict=True)]
        parts = tuple(
            Part(field, form, tuple(size.tolist()), main, near)
            for field, form, size, main, near in zip(fields, forms, sizes, mains, nears, strict=True)
        )
        return Layout(self._scalars, self._properties, parts, row_numbers, numbers, tuple(self._place.tolist()))

    def _size(self, field: str, form: int) -> np.ndarray:
        if field in ("scalars", "properties"):
            return np.array([len(self._scalars if field == "scalars" else self._properties), 0, 0, 0])
        if field == "stress":
            return np.array([6 if form & SYMMETRIC else 9, 0, 0, 0])
        return np.array([*SIZES[field], 0])

    def _take(self, size: object) -> tuple[tuple[int, ...], tuple[int, ...]]:
        start = self._place
        self._place = start + np.asarray(size)
        return tuple(start.tolist()), tuple(self._place.tolist())


def place(where: tuple[int, ...], natoms: int, rows: int) -> int:
    """A place of a layout as a byte of a record's payload."""
    return where[0] + where[1] * natoms + where[2] * rows * natoms + where[3] * rows
