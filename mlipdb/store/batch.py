"""Reads many records at once into flat arrays: each step costs little a record."""

import zlib
from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import zstandard
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8

from mlipdb.errors import CorruptError
from mlipdb.records import ArrayBatch
from mlipdb.store.decode import Decoder, check_sum, check_version, checked_claims
from mlipdb.store.dictionary import DICTIONARY
from mlipdb.store.floats import (
    FRACTIONAL,
    FULL,
    KIND,
    NEAR8,
    NEAR16,
    SYMMETRIC,
    WHOLE,
    near_values,
    numbers_type,
    repeat_cells,
    restore,
    widths,
)
from mlipdb.store.layout import ARRAYS, HEAD, RESIDUE, SCALARS, VERSION, seed
from mlipdb.store.layouts import KnownLayouts
from mlipdb.store.memory import keep_freed_memory
from mlipdb.store.record import Record
from mlipdb.store.split import as_records

PER_ATOM = {"forces": 3, "magmoms": 1, "atomic_energies": 1}  # values an atom, of the fields that a batch may hold
QUANTITIES = (*SCALARS, *PER_ATOM, "stress")
STRUCTURE_QUANTITIES = SCALARS[:2]
_NEEDED = ("scalars", "cell", "positions")
_SHORT = 64  # bytes that numpy gathers faster than Python cuts and joins
_HEAD = np.dtype([("natoms", "<u4"), ("rows", "<u4"), ("signature", "<u2")])


class BatchDecoder:
    """Reads records of any version; those of the present one together. Holds a decompressor, so one per thread."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._decompress = zstandard.ZstdDecompressor(dict_data=DICTIONARY).multi_decompress_to_buffer
        self._single = Decoder()
        self._known = KnownLayouts()

    def decode(self, ids: Sequence[int], records: Sequence[bytes], fields: Collection[str]) -> ArrayBatch:
        """The records' structures and those quantities of their labels, in order; see ArrayBatch.

        Raises CorruptError as Decoder does. A label without a structure has its atoms where it has arrays of them.
        """
        return self._decode(ids, records, fields, whole=False)[0]

    def records(self, ids: Sequence[int], records: Sequence[bytes]) -> list[Record]:
        """The same as structures and labels; their arrays are parts of larger ones."""
        batch, payloads, found = self._decode(ids, records, QUANTITIES, whole=True)
        made = as_records(batch, [record[3] for record in records], payloads.properties)
        for place in payloads.special():
            made[place] = self._single.decode(ids[place], records[place])
        for place, record in found.items():
            made[place] = record
        return made

    def _decode(
        self, ids: Sequence[int], records: Sequence[bytes], fields: Collection[str], *, whole: bool
    ) -> tuple[ArrayBatch, "_Payloads", dict[int, Record]]:
        """The batch, the payloads in it, and the records of older versions by their places."""
        old = _damaged_or_old(ids, records)
        current = np.delete(np.arange(len(ids)), sorted(old))
        payloads = self._payloads(ids, [records[place] for place in current.tolist()] if old else records)
        found = {place: self._single.decode(ids[place], records[place]) for place in old}
        natoms = np.zeros(len(ids), np.int64)
        natoms[current] = payloads.natoms
        for place, record in found.items():
            natoms[place] = 0 if record.structure is None else len(record.structure)
        batch = empty_batch(ids, natoms, fields)
        batch.pbc[...] = _directions(records)
        try:
            payloads.write(batch, current, whole=whole)
        except (ValueError, IndexError) as error:
            raise CorruptError(f"records {ids[0]} … {ids[-1]}: {error}; run `mlipdb verify --deep`") from error
        for place, record in found.items():
            write_record(batch, place, record)
        return batch, payloads, found

    def _payloads(self, ids: Sequence[int], records: Sequence[bytes]) -> "_Payloads":
        try:
            sizes = checked_claims(records)
            buffers: Any = self._decompress(_frames(records)) if records else []  # the stubs want an iterable to join
            return _Payloads(b"".join(buffers), sizes, self._known)
        except (zstandard.ZstdError, ValueError, IndexError) as error:
            raise CorruptError(f"records {ids[0]} … {ids[-1]}: {error}; run `mlipdb verify --deep`") from error


def _damaged_or_old(ids: Sequence[int], records: Sequence[bytes]) -> set[int]:
    """Places of records of an older version; CorruptError at the first that is damaged."""
    seeds = ids if max(ids, default=0) < 1 << 32 else list(map(seed, ids))
    sums = list(map(zlib.crc32, records, seeds))
    if sums.count(RESIDUE) == len(records) == len(ids):
        return set()
    suspects = [place for place, (found, *_) in enumerate(zip(sums, records, ids, strict=True)) if found != RESIDUE]
    for place in suspects:
        if check_version(ids[place], records[place]) == VERSION:
            check_sum(ids[place], records[place])
    return set(suspects)


def _frames(records: Sequence[bytes]) -> zstandard.BufferWithSegments:
    """The records' zstd frames, in place."""
    sizes = np.array(list(map(len, records)), np.uint64)
    segments = np.stack([np.cumsum(sizes) - sizes + 4, sizes - 8], axis=1)
    return zstandard.BufferWithSegments(b"".join(records), segments.tobytes())


def _directions(records: Sequence[bytes]) -> Bool[np.ndarray, "records 3"]:
    """Which directions each record's flags call periodic."""
    flags = np.frombuffer(bytes(map(itemgetter(3), records)), np.uint8)
    return (flags[:, None] & np.array([1, 2, 4], np.uint8)).astype(bool)


def empty_batch(ids: Sequence[int], natoms: Int64[np.ndarray, " structures"], fields: Collection[str]) -> ArrayBatch:
    """A batch in which nothing is present yet."""
    count, atoms = len(ids), int(natoms.sum())
    values, present = {}, {}
    for name in fields:
        if name not in QUANTITIES:
            raise ValueError(f"{name!r} is none of {', '.join(QUANTITIES)}")
        shape = {"forces": (atoms, 3), "stress": (count, 3, 3)}.get(name, (atoms,) if name in PER_ATOM else (count,))
        values[name], present[name] = np.full(shape, np.nan), np.zeros(count, bool)
    return ArrayBatch(
        ids=np.array(ids, np.int64),
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(natoms)]),
        atomic_numbers=np.zeros(atoms, np.uint8),
        positions=np.full((atoms, 3), np.nan),
        cells=np.full((count, 3, 3), np.nan),
        pbc=np.zeros((count, 3), bool),
        values=values,
        present=present,
    )


def write_record(batch: ArrayBatch, place: int, record: Record) -> None:
    """Put one record, decoded on its own, into a batch."""
    atoms = slice(int(batch.offsets[place]), int(batch.offsets[place + 1]))
    structure, label = record.structure, record.label
    if structure is not None:
        batch.atomic_numbers[atoms], batch.positions[atoms] = structure.atomic_numbers, structure.positions
        batch.cells[place] = structure.cell
    for name, values in batch.values.items():
        owner: object = structure if name in STRUCTURE_QUANTITIES else label
        value = None if owner is None else getattr(owner, name)
        if value is not None:
            values[atoms if name in PER_ATOM else place] = value
            batch.present[name][place] = True


def _threes(values: Float64[np.ndarray, "..."]) -> Shaped[np.ndarray, " threes"]:
    """Three numbers each as one thing, which numpy moves in half the time."""
    return values.reshape(-1).view("V24")


class _Payloads:
    """Decompressed records of the present version, end to end."""

    def __init__(self, whole: bytes, sizes: Sequence[int], known: KnownLayouts) -> None:
        self.properties: dict[int, dict[str, float]] = {}
        self._sizes = np.array(sizes, np.int64)
        self._whole = whole
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._everyone = everyone = np.arange(len(sizes))
        heads = self._slices(everyone, np.zeros(len(sizes), np.int64), np.full(len(sizes), HEAD.size))
        head = np.frombuffer(heads, _HEAD)
        self.natoms: Int64[np.ndarray, " records"] = head["natoms"].astype(np.int64)
        self._rows = head["rows"].astype(np.int64)
        if (self.natoms > self._sizes).any():  # an atom takes a byte at least
            raise ValueError("a record claims more atoms than it has bytes")
        self._with_rows = bool(self._rows.any())
        first = self._starts + HEAD.size
        ends = (first + head["signature"]).tolist()
        self._known = known
        self._kind = known.number([whole[start:end] for start, end in zip(first.tolist(), ends, strict=True)])
        if len(sizes):
            self._find_places()

    def _find_places(self) -> None:
        """Where every array of every record lies: one row a field of ARRAYS, one column a record."""
        tables = self._known.arrays
        self._form = np.take(tables[0], self._kind, axis=1)
        self._size, self._main, self._near = (self._bytes_at(tables[n : n + 4]) for n in (1, 5, 9))
        self._full = self._bytes_at(self._known.full)[0]
        if (self._full > self._sizes).any():
            raise ValueError("a record is shorter than its fields need")

    def _bytes_at(self, where: Int64[np.ndarray, "4 fields layouts"]) -> Int64[np.ndarray, "fields records"]:
        """Places of layouts in the payloads of records."""
        once, per_atom, per_row_and_atom, per_row = where
        at = np.take(per_atom, self._kind, axis=1)
        at *= self.natoms
        at += np.take(once, self._kind, axis=1)
        if self._with_rows:
            at += np.take(per_row_and_atom, self._kind, axis=1) * (self._rows * self.natoms)
            at += np.take(per_row, self._kind, axis=1) * self._rows
        return np.asarray(at, np.int64)

    def special(self) -> list[int]:
        """Places in the batch of records that have Hessian rows or no structure, which a batch cannot say."""
        if not len(self._sizes):
            return []
        odd = self._known.has_rows | ~self._known.has_structure
        return [int(place) for place in self._at[odd[self._kind]]]

    def write(self, batch: ArrayBatch, places: Int64[np.ndarray, " records"], *, whole: bool) -> None:
        """Put the records into a batch at these places; with whole, properties are kept by place as well."""
        self._at, self._keep = places, whole
        if not len(self._sizes):
            return
        self._batch = batch
        self._first = batch.offsets[places]
        self._write_numbers()
        for number, field in enumerate(ARRAYS):
            self._write_field(number, field)
        if (self._full != self._sizes).any():
            raise ValueError("a record's length is not what its fields need")

    def _slices(
        self, members: Int64[np.ndarray, " some"], starts: Int64[np.ndarray, " some"], sizes: Int64[np.ndarray, " some"]
    ) -> bytes:
        """The same part of some records, end to end."""
        whole, first = self._whole, self._starts[members] + starts
        size = int(sizes[0]) if len(sizes) else 0
        if 0 < size <= _SHORT and (sizes == size).all():
            return self._alike(first, size)
        pieces = zip(first.tolist(), (first + sizes).tolist(), strict=True)
        return b"".join([whole[start:end] for start, end in pieces])

    def _alike(self, first: Int64[np.ndarray, " some"], size: int) -> bytes:
        """So many bytes from each of these places on."""
        count = len(self._whole) - size + 1
        if count <= int(first.max()):
            raise IndexError("a record is shorter than its fields need")
        windows = np.ndarray((count,), f"V{size}", self._whole, strides=(1,))
        return bytes(windows[first].tobytes())

    def _write_field(self, number: int, field: str) -> None:
        """Write a field of all records, those of one form at a time."""
        needed = field in _NEEDED or field in self._batch.values or (field == "properties" and self._keep)
        forms = self._form[number]
        alike = forms & ~FULL  # whether values stand in full, the distances tell
        for form in np.flatnonzero(np.bincount(alike[forms >= 0])).tolist():
            members = np.flatnonzero(alike == form)
            form |= FULL & int(np.bitwise_or.reduce(forms[members]))
            if needed:
                self._store(field, form, self._values(number, field, form, members), members)
            elif form & FULL:
                self._move(np.zeros(int(self._size[number][members].sum())), number, form, members)

    def _values(
        self, number: int, field: str, form: int, members: Int64[np.ndarray, " some"]
    ) -> Float64[np.ndarray, " values"]:
        """The values of a field of some records, end to end."""
        sizes, cells = self._size[number][members], None
        main = self._slices(members, self._main[number][members], sizes * widths(field)[form & KIND])
        if field == "positions" and form & KIND == FRACTIONAL:
            cells = repeat_cells(self._batch.cells[self._at[members]], self.natoms[members])
        divisors = np.repeat(self.natoms[members], sizes) if field == "properties" else 0
        numbers = np.frombuffer(main, numbers_type(field, form))
        values = restore(form, numbers, field=field, cells=cells, natoms=divisors)
        if form & (NEAR8 | NEAR16):
            self._move(values, number, form, members)
        return values

    def _move(
        self, values: Float64[np.ndarray, " values"], number: int, form: int, members: Int64[np.ndarray, " some"]
    ) -> None:
        """Move values by their distances and put in those that stand in full."""
        sizes = self._size[number][members]
        near = self._slices(members, self._near[number][members], sizes * (1 if form & NEAR8 else 2))
        far = near_values(form, values, near)
        if far is not None:
            self._fill(values, far, sizes, members)

    def _fill(
        self,
        values: Float64[np.ndarray, " values"],
        far: Bool[np.ndarray, " values"],
        sizes: Int64[np.ndarray, " some"],
        members: Int64[np.ndarray, " some"],
    ) -> None:
        """Put in the values that stand in full at the end of their records."""
        ends = np.searchsorted(np.flatnonzero(far), np.cumsum(sizes))
        counts = 8 * np.diff(ends, prepend=0)
        some = np.flatnonzero(counts)
        owners, counts = members[some], counts[some]
        if (self._full[owners] + counts > self._sizes[owners]).any():
            raise ValueError("a record is shorter than its fields need")
        values[far] = np.frombuffer(self._slices(owners, self._full[owners], counts), "<f8")
        self._full[owners] += counts

    def _store(
        self, field: str, form: int, values: Float64[np.ndarray, " values"], members: Int64[np.ndarray, " some"]
    ) -> None:
        """Put the values of a field of some records where they belong in the batch."""
        batch, at = self._batch, self._at[members]
        if field == "scalars":
            self._store_scalars(values, members)
        elif field == "properties":
            self._store_properties(values, members)
        elif field == "cell":
            batch.cells[at] = values.reshape(-1, 3, 3)
        elif field == "positions":
            _threes(batch.positions)[self._atoms(members)] = _threes(values)
        elif field in batch.values:
            batch.present[field][at] = True
            target = batch.values[field]
            if field == "stress":
                nine = values.reshape(-1, 6)[:, WHOLE] if form & SYMMETRIC else values
                target[at] = nine.reshape(-1, 3, 3)
            elif PER_ATOM[field] == 3:
                _threes(target)[self._atoms(members)] = _threes(values)
            else:
                target[self._atoms(members)] = values

    def _store_scalars(self, values: Float64[np.ndarray, " values"], members: Int64[np.ndarray, " some"]) -> None:
        """Scalars of a record stand one after another: those that its layout names."""
        has = self._known.scalars.T[self._kind[members]]
        place = np.concatenate([[0], np.cumsum(has.sum(axis=1))])[:-1, None] + np.cumsum(has, axis=1) - 1
        for column, name in enumerate(SCALARS):
            if name in self._batch.values:
                rows = np.flatnonzero(has[:, column])
                at = self._at[members[rows]]
                self._batch.values[name][at] = values[place[rows, column]]
                self._batch.present[name][at] = True

    def _store_properties(self, values: Float64[np.ndarray, " values"], members: Int64[np.ndarray, " some"]) -> None:
        given = iter(values.tolist())
        for place, kind in zip(self._at[members].tolist(), self._kind[members].tolist(), strict=True):
            self.properties[place] = {name: next(given) for name in self._known.layouts[kind].properties}

    def _atoms(self, members: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " atoms"] | slice:
        """Where the atoms of some records stand in the batch."""
        if len(members) == len(self._batch.ids):
            return slice(None)
        counts = self.natoms[members]
        before = np.cumsum(counts) - counts
        return np.repeat(self._first[members] - before, counts) + np.arange(int(counts.sum()))

    def _write_numbers(self) -> None:
        has = self._known.has_structure[self._kind]
        starts = self._bytes_at(self._known.atomic_numbers)[0]
        members = self._everyone if has.all() else np.flatnonzero(has)
        if len(members):
            data = self._slices(members, starts[members], self.natoms[members])
            numbers: UInt8[np.ndarray, " atoms"] = np.frombuffer(data, np.uint8)
            self._batch.atomic_numbers[self._atoms(members)] = numbers
