"""Reads records one by one, of every format version."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import zstandard
from jaxtyping import Float64
from zstandard import frame_content_size

from mlipdb.errors import CorruptError
from mlipdb.labels import Label
from mlipdb.store.dictionary import DICTIONARY
from mlipdb.store.floats import SYMMETRIC, WHOLE, near_values, numbers_type, restore
from mlipdb.store.layout import HEAD, RESIDUE, VERSION, Layout, Part, layout_of, place, seed
from mlipdb.store.record import MAGIC, PERIODIC, Record, includes_e0
from mlipdb.store.record_v1 import DecoderV1
from mlipdb.structures import Structure

Fields = dict[str, object]
_FRAME_HEADER = 4 + 18  # where the header of a zstd frame ends at the latest
MOST = 40_000  # times that zstd can shrink anything; a frame that claims more was forged


class Decoder:
    """Reads record bytes. Holds decompressors, so one per thread."""

    def __init__(self) -> None:
        self._decompress = zstandard.ZstdDecompressor(dict_data=DICTIONARY).decompress
        self._first = DecoderV1()

    def decode(self, identity: int, data: bytes) -> Record:
        """The record stored under a structure id.

        Raises CorruptError that says what does not fit: magic, version, checksum or length.
        """
        if check_version(identity, data) == 1:
            return self._first.decode(identity.to_bytes(8), data)
        check_sum(identity, data)
        try:
            checked_claims([data])
            fields = _unpack(self._decompress(data[4:-4]))
        except (zstandard.ZstdError, ValueError, struct.error, LookupError, OverflowError, MemoryError) as error:
            raise CorruptError(f"record {identity}: {error}; run `mlipdb verify --deep`") from error
        return Record(_structure(fields, data[3], identity), _label(fields, data[3]))


def check_version(identity: int, data: bytes) -> int:
    """The format version that a record's header names; CorruptError where this mlipdb does not read it."""
    if len(data) < 16:
        raise CorruptError(f"record {identity} has {len(data)} bytes; it is cut off")
    if data[:2] != MAGIC:
        raise CorruptError(f"record {identity} begins with {data[:2]!r}, not {MAGIC!r}; it is no mlipdb record")
    if data[2] not in (1, VERSION):
        raise CorruptError(
            f"record {identity} has format version {data[2]}; this mlipdb reads 1 to {VERSION}; upgrade it"
        )
    return data[2]


def check_sum(identity: int, data: bytes) -> None:
    """Raise CorruptError unless a record of format 2 is whole and stands under its own id."""
    if zlib.crc32(data, seed(identity)) != RESIDUE:
        raise CorruptError(f"record {identity} fails its checksum; run `mlipdb verify --deep` for the extent")


def checked_claims(records: Sequence[bytes]) -> list[int]:
    """The sizes that records claim; ValueError where no frame has such a one, before memory is taken for it."""
    claims = [frame_content_size(record[4:_FRAME_HEADER]) for record in records]
    if max(claims, default=0) > MOST * min(map(len, records), default=0):  # which it never is of usual ones
        for record, claim in zip(records, claims, strict=True):
            if claim > MOST * len(record):
                raise ValueError(f"its {len(record)} bytes claim to hold more than {MOST} times as many")
    return claims


def _unpack(raw: bytes) -> Fields:
    natoms, rows, length = HEAD.unpack_from(raw)
    layout = layout_of(raw[HEAD.size : HEAD.size + length])
    arrays = _Unpacker(raw, natoms, rows, layout).arrays()
    fields: Fields = {}
    for name, value in zip(layout.scalars, arrays.pop("scalars", np.zeros(0)).tolist(), strict=True):
        fields[name] = value
    if "properties" in arrays:
        fields["properties"] = dict(zip(layout.properties, arrays.pop("properties").tolist(), strict=True))
    for name, shape in (("cell", (3, 3)), ("positions", (natoms, 3)), ("forces", (natoms, 3)), ("stress", (3, 3))):
        if name in arrays:
            arrays[name] = arrays[name].reshape(shape)
    if "hessian_rows" in arrays:
        arrays["hessian_rows"] = arrays["hessian_rows"].reshape(rows, natoms, 3)
    if layout.row_numbers is not None:
        fields["hessian_row_numbers"] = np.frombuffer(raw, "<i4", rows, place(layout.row_numbers, 0, 0)).astype(
            np.int32
        )
    if layout.atomic_numbers is not None:
        numbers = np.frombuffer(raw, np.uint8, natoms, place(layout.atomic_numbers[0], natoms, rows))
        fields["atomic_numbers"] = numbers.copy()
    return fields | arrays


class _Unpacker:
    """The float arrays of one record's payload."""

    def __init__(self, raw: bytes, natoms: int, rows: int, layout: Layout) -> None:
        self._raw, self._natoms, self._rows, self._layout = raw, natoms, rows, layout
        self._full = place(layout.full, natoms, rows)
        self._cell: Float64[np.ndarray, "3 3 1"] | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Flat arrays by field."""
        found = {}
        for part in self._layout.parts:
            found[part.field] = values = self._array(part)
            if part.field == "cell":
                self._cell = values.reshape(3, 3, 1)
        if self._full != len(self._raw):
            raise ValueError(f"{len(self._raw)} bytes where its fields need {self._full}")
        return found

    def _array(self, part: Part) -> np.ndarray:
        natoms, rows, form = self._natoms, self._rows, part.form
        size, start = place(part.size, natoms, rows), place(part.main[0], natoms, rows)
        numbers = np.frombuffer(self._raw, numbers_type(part.field, form), size, start)
        values = restore(form, numbers, field=part.field, cells=self._cell, natoms=natoms)
        if part.near is not None:
            first, last = (place(where, natoms, rows) for where in part.near)
            far = near_values(form, values, self._raw[first:last])
            if far is not None:
                count = int(np.count_nonzero(far))
                values[far] = np.frombuffer(self._raw, "<f8", count, self._full)
                self._full += 8 * count
        return values[WHOLE] if form & SYMMETRIC else values


def _structure(fields: Fields, flags: int, identity: int) -> Structure | None:
    """Take the structure's fields out of the record's."""
    if "atomic_numbers" not in fields:
        return None
    spin = fields.pop("spin_multiplicity", None)
    return Structure(
        fields.pop("atomic_numbers"),  # type: ignore[arg-type]  # types are those of the layout
        fields.pop("positions"),  # type: ignore[arg-type]
        fields.pop("cell"),  # type: ignore[arg-type]
        PERIODIC[flags & 7],
        fields.pop("charge", None),  # type: ignore[arg-type]
        None if spin is None else int(spin),  # type: ignore[call-overload]
        identity,
    )


def _label(fields: Fields, flags: int) -> Label | None:
    """A label of what is left, or None."""
    if not fields:
        return None
    return Label(atomic_energies_include_e0=includes_e0(flags), **fields)  # type: ignore[arg-type]
