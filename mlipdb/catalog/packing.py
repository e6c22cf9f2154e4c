"""Columns of a shard as bytes: which rows are in a set, and a value of every entry, exact and small."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Num, UInt, UInt8

VERSION = 1
_HEAD = struct.Struct("<BBBBI")  # version, kind, bytes of a code or place, flags, entries
_DENSE, _SPARSE = 0, 1
_INTEGERS, _FLOATS = 0, 1
_PLACES = 1  # flag: each entry says which row it is of

Bits = UInt8[np.ndarray, " _"]
Places = Int64[np.ndarray, " _"]


class UnknownPackingError(ValueError):
    """Bytes of a version that this mlipdb does not read; the answer is in the other tables."""


@dataclass(frozen=True, eq=False)
class Column:
    """Values of entries as places in a sorted dictionary. codes count from 1, 0 is unknown; places are their rows.

    places None: one entry for each row, in order.
    """

    values: Num[np.ndarray, " values"]
    codes: UInt[np.ndarray, " entries"]
    places: Places | None

    def select(self, chosen: Bool[np.ndarray, " values"], *, rows: int) -> Bits:
        """A bitmap of the rows with an entry whose value is chosen."""
        hits = self._hits(np.flatnonzero(chosen) + 1)
        if self.places is None:
            return np.packbits(hits, bitorder="little")
        return bitmap(self.places[hits], rows=rows)

    def _hits(self, wanted: Places) -> Bool[np.ndarray, " entries"]:
        """The entries whose code is wanted; most questions are for a range of codes, which is quicker to compare."""
        if not len(wanted):
            return np.zeros(len(self.codes), dtype=bool)
        first, last = int(wanted[0]), int(wanted[-1])
        if last - first + 1 == len(wanted):
            above = self.codes >= first
            return above if last == len(self.values) else above & (self.codes <= last)
        table = np.zeros(len(self.values) + 1, dtype=bool)
        table[wanted] = True
        return np.take(table, self.codes)


def bitmap(places: Places, *, rows: int) -> Bits:
    """One bit for each row, the lowest bit first, set at the places; padded with 0 to whole bytes."""
    flags = np.zeros(rows, dtype=np.uint8)
    flags[places] = 1
    return np.packbits(flags, bitorder="little")


def pack_set(places: Places, *, rows: int) -> bytes:
    """The places of a set among rows: as bits, or as numbers where that is smaller."""
    width = 2 if rows <= 1 << 16 else 4
    if width * len(places) < rows // 8:
        return _HEAD.pack(VERSION, _SPARSE, width, 0, rows) + places.astype(f"<u{width}").tobytes()
    return _HEAD.pack(VERSION, _DENSE, 0, 0, rows) + bitmap(places, rows=rows).tobytes()


def unpack_set(data: bytes) -> Bits:
    """The bitmap of a packed set."""
    kind, width, _, rows = _head(data)
    if kind == _DENSE:
        return np.frombuffer(data, np.uint8, offset=_HEAD.size)
    return bitmap(np.frombuffer(data, f"<u{width}", offset=_HEAD.size).astype(np.int64), rows=rows)


def pack_column(values: Sequence[float | int | None], places: Places | None = None, *, floats: bool = False) -> bytes:
    """The value of each entry, None for unknown; whole numbers below 2^53 unless floats. places as in Column."""
    given = np.array(values, dtype=np.float64)  # None becomes NaN, which no value is
    known = ~np.isnan(given)
    distinct, inverse = np.unique(given[known].astype("<f8" if floats else "<i8"), return_inverse=True)
    codes = np.zeros(len(values), dtype=np.int64)
    codes[known] = inverse.reshape(-1) + 1
    width = 1 if len(distinct) < 1 << 8 else 2 if len(distinct) < 1 << 16 else 4
    if len(codes) and (codes == codes[0]).all():
        width, stored = 0, codes[:1].astype("<u4").tobytes()  # one code for all
    else:
        stored = codes.astype(f"<u{width}").tobytes()
    flags = 0 if places is None else _PLACES
    parts = [_HEAD.pack(VERSION, _FLOATS if floats else _INTEGERS, width, flags, len(values))]
    parts += [struct.pack("<I", len(distinct)), distinct.tobytes(), stored]
    if places is not None:
        parts.append(places.astype("<u4").tobytes())
    return b"".join(parts)


def unpack_column(data: bytes) -> Column:
    """The column of packed values."""
    kind, width, flags, entries = _head(data)
    (distinct,) = struct.unpack_from("<I", data, _HEAD.size)
    start = _HEAD.size + 4
    values = np.frombuffer(data, "<f8" if kind == _FLOATS else "<i8", count=distinct, offset=start)
    start += 8 * distinct
    if width:
        codes = np.frombuffer(data, f"<u{width}", count=entries, offset=start)
    else:
        codes = np.broadcast_to(np.frombuffer(data, "<u4", count=min(entries, 1), offset=start), entries)
    start += width * entries if width else 4 * min(entries, 1)
    places = np.frombuffer(data, "<u4", offset=start).astype(np.int64) if flags & _PLACES else None
    return Column(values, codes, places)


@dataclass(frozen=True, eq=False)
class IdRange:
    """Ids that ascend: rows of them from first on, or those listed where some are left out."""

    first: int
    rows: int
    listed: Places | None = None

    def all(self) -> Places:
        """Every id."""
        return np.arange(self.first, self.first + self.rows, dtype=np.int64) if self.listed is None else self.listed

    def places(self, ids: Places) -> Places:
        """The places of those of some ascending ids that are among these."""
        if self.listed is None:
            low, high = np.searchsorted(ids, [self.first, self.first + self.rows])
            return ids[low:high] - self.first
        return np.flatnonzero(np.isin(self.listed, ids, assume_unique=True))


def pack_ids(ids: Places) -> bytes:
    """Ids that ascend: the first alone where they are consecutive."""
    consecutive = len(ids) == 0 or int(ids[-1]) - int(ids[0]) == len(ids) - 1
    head = _HEAD.pack(VERSION, _DENSE if consecutive else _SPARSE, 8, 0, len(ids))
    return head + (ids[:1] if consecutive else ids).astype("<i8").tobytes()


def unpack_ids(data: bytes) -> IdRange:
    """The ids that were packed."""
    kind, _, _, rows = _head(data)
    stored = np.frombuffer(data, "<i8", offset=_HEAD.size)
    first = int(stored[0]) if rows else 0
    return IdRange(first, rows, stored if kind == _SPARSE else None)


def full_bitmap(rows: int) -> Bits:
    """Every row."""
    whole = np.full(-(-rows // 8), 255, dtype=np.uint8)
    if rows % 8:
        whole[-1] = (1 << rows % 8) - 1
    return whole


def _head(data: bytes) -> tuple[int, int, int, int]:
    version, kind, width, flags, rows = _HEAD.unpack_from(data)
    if version != VERSION:
        raise UnknownPackingError(f"a facet of version {version}; this mlipdb reads {VERSION}")
    return kind, width, flags, rows
