"""Float64 arrays in as few bytes as they need, bit for bit; many records at a time. A part of record format 2.

A form is one byte. Its two lowest bits say what stands for a value: RAW float64, SINGLE float32, DECIMAL an int32 count
of 1e-8, FRACTIONAL the same for coordinates in the cell, LONG an int64 count for all else. Its two highest bits choose
a factor of SCALES. With NEAR8 or NEAR16 an integer follows for each value, its distance in ulps from that number; two
of these integers mean the other zero and, with FULL, a value that stands in full at the record's end. SYMMETRIC: six of
a matrix's nine values stand.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8

RAW, SINGLE, DECIMAL, FRACTIONAL = range(4)
LONG = FRACTIONAL  # the same number: positions are never long, nothing else is fractional
KIND, NEAR8, NEAR16, FULL, SYMMETRIC, SCALE = 3, 4, 8, 16, 32, 6
UNIT = 1e8  # k / 1e8 is the double nearest to the decimal number, as a correct parser gives it
LARGEST = 2.0**31 - 1
LONGEST = 2.0**53
UPPER = np.array([0, 1, 2, 4, 5, 8])  # of a symmetric matrix
WHOLE = np.array([0, 1, 2, 1, 3, 4, 2, 4, 5])  # where its nine values stand among the six
PER_ATOM = -1.0  # no factor: divide by the number of atoms

# Readers multiply by these (mlipdb.units), so the source's own digits come back by division. Part of the format: they
# stay as they are even where units.py moves on to newer constants.
_KBAR = 1.0 / 1602.1766340
_LENGTHS = (0.529177210903,)
_ENERGIES = (27.211386245988, 4184.0 / 96485.33212331001)
SCALES: dict[str, tuple[float, ...]] = {
    "scalars": _ENERGIES,
    "properties": (PER_ATOM, *_ENERGIES),
    "cell": _LENGTHS,
    "positions": _LENGTHS,
    "forces": (27.211386245988 / 0.529177210903, 4184.0 / 96485.33212331001),
    "stress": (-_KBAR, 10.0 / 1602.1766340, _KBAR),
    "magmoms": (),
    "atomic_energies": _ENERGIES,
    "hessian_rows": (27.211386245988 / 0.529177210903**2,),
}


def widths(field: str) -> tuple[int, int, int, int]:
    """Bytes that stand for a value of a field, by kind of form."""
    return (8, 4, 4, 4 if field == "positions" else 8)


def numbers_type(field: str, form: int) -> str:
    """The type of what stands for values of a field."""
    kind = form & KIND
    return "<i8" if kind == LONG and field != "positions" else ("<f8", "<f4", "<i4", "<i4")[kind]


@dataclass(frozen=True, eq=False)
class Packed:
    """One array of some records: for each the form, the bytes that stand for values, distances, values in full."""

    forms: UInt8[np.ndarray, " records"]
    main: list[bytes]
    near: list[bytes]
    full: list[bytes]


@dataclass(frozen=True, eq=False)
class Arrays:
    """The values of one field of some records, end to end; record k has those from offsets[k] to offsets[k + 1].

    natoms counts atoms and cells are in Å, one a record, where the field's forms need them.
    """

    field: str
    values: Float64[np.ndarray, " values"]
    offsets: Int64[np.ndarray, " ends"]
    natoms: Int64[np.ndarray, " records"]
    cells: Float64[np.ndarray, "records 3 3"] | None = None

    def take(self, chosen: Int64[np.ndarray, " some"]) -> "Arrays":
        """The same of some of the records."""
        sizes = np.diff(self.offsets)
        if len(chosen) == len(sizes):
            return self
        keep = np.zeros(len(sizes), bool)
        keep[chosen] = True
        cells = None if self.cells is None else self.cells[chosen]
        values = self.values[np.repeat(keep, sizes)]
        return Arrays(self.field, values, _offsets(sizes[chosen]), self.natoms[chosen], cells)


def _offsets(sizes: Int64[np.ndarray, " records"]) -> Int64[np.ndarray, " ends"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def pack(arrays: Arrays) -> Packed:
    """A short lossless form of each record's array; values may be anything that a double can be."""
    count = len(arrays.offsets) - 1
    packed = Packed(np.full(count, RAW, np.uint8), [b""] * count, [b""] * count, [b""] * count)
    if arrays.field != "stress":
        _pack(arrays, np.arange(count), packed)
        return packed
    matrices = arrays.values.reshape(-1, 3, 3)
    same = (matrices.view(np.int64) == np.ascontiguousarray(matrices.transpose(0, 2, 1)).view(np.int64)).all((1, 2))
    for chosen, columns in ((np.flatnonzero(same), UPPER), (np.flatnonzero(~same), np.arange(9))):
        if len(chosen):
            values = np.ascontiguousarray(matrices.reshape(-1, 9)[chosen][:, columns]).reshape(-1)
            offsets = np.arange(len(chosen) + 1) * len(columns)
            _pack(Arrays("stress", values, offsets, arrays.natoms[chosen]), chosen, packed)
    packed.forms[same] |= SYMMETRIC
    return packed


def _pack(arrays: Arrays, places: Int64[np.ndarray, " records"], packed: Packed) -> None:
    """Put each record's array into packed at its place: as decimals where they fit, else as float32, else in full."""
    guess = _Guess(arrays, DECIMAL, scale=0)
    chosen = np.zeros(len(places), np.int64)
    guesses, cost, sizes = [guess], guess.cost, np.diff(arrays.offsets)
    for kind, scale in _candidates(arrays):
        # Fractions of the cell compress well where they are simple; nothing else beats decimals and their neighbours.
        unsettled = np.flatnonzero(cost > (4 if kind == FRACTIONAL else 6) * sizes)
        if kind != RAW and (kind != FRACTIONAL or arrays.field != "positions"):
            unsettled = unsettled[_begins(arrays, unsettled, kind, scale=scale)]
        if not len(unsettled):
            continue
        guess = _Guess(arrays.take(unsettled), kind, scale=scale, among=unsettled)
        better = guess.cost < cost[unsettled]
        cost[unsettled[better]] = guess.cost[better]
        chosen[unsettled[better]] = len(guesses)
        guesses.append(guess)
    for number, guess in enumerate(guesses):
        guess.emit(np.flatnonzero(chosen == number), places, packed)


def _candidates(arrays: Arrays) -> list[tuple[int, int]]:
    """What else to try, the most likely first."""
    tried = [(FRACTIONAL, 0)] if arrays.field == "positions" and arrays.cells is not None else []
    scales = range(1, len(SCALES[arrays.field]) + 1)
    long = [(LONG, scale) for scale in (0, *scales)] if arrays.field in ("scalars", "properties") else []
    single = [(SINGLE, scale) for scale in (0, *scales)]
    return [*tried, *((DECIMAL, scale) for scale in scales), *long, *single, (RAW, 0)]


def _begins(arrays: Arrays, chosen: Int64[np.ndarray, " some"], kind: int, *, scale: int) -> Bool[np.ndarray, " some"]:
    """For which of these records a form can say the first value, as float32 must say all: it is not tried for others.

    A form that says the others but not the first is rare, and saves little.
    """
    values = arrays.values[arrays.offsets[chosen]]
    natoms = arrays.natoms[chosen]
    first = Arrays(arrays.field, values, np.arange(len(chosen) + 1), natoms)
    found = restore(kind | scale << SCALE, _numbers(first, kind, scale), field=arrays.field, natoms=natoms)
    distance = values.view(np.int64) - found.view(np.int64)
    return np.asarray(distance == 0 if kind == SINGLE else ~_beyond(distance, 32767) | (values == 0))


class _Guess:
    """One way to write some records' arrays, with what it costs in bytes, infinite where it cannot."""

    def __init__(
        self, arrays: Arrays, kind: int, *, scale: int, among: Int64[np.ndarray, " records"] | None = None
    ) -> None:
        count = len(arrays.offsets) - 1
        self._offsets = arrays.offsets
        self._values = arrays.values
        self._form = kind | scale << SCALE
        self._row = np.arange(count) if among is None else among
        sizes = np.diff(arrays.offsets)
        if kind == RAW:
            self.cost = 8.0 * sizes
            self._main, self._width = arrays.values.astype("<f8"), 8
            self._near = self._wide = np.zeros(count, bool)
            return
        self._width = widths(arrays.field)[kind]
        self._main = _numbers(arrays, kind, scale)
        whole = arrays.cells if kind == FRACTIONAL else None
        cells = None if whole is None else repeat_cells(whole, arrays.natoms)
        natoms = np.repeat(arrays.natoms, sizes) if arrays.field == "properties" else 0
        found = restore(self._form, self._main, field=arrays.field, cells=cells, natoms=natoms)
        self._distance = arrays.values.view(np.int64) - found.view(np.int64)
        self._weigh(sizes, exact=kind == SINGLE, unit=5.5 if self._width == 8 else 4.0)  # a long's high bytes compress

    def _weigh(self, sizes: Int64[np.ndarray, " records"], *, exact: bool, unit: float) -> None:
        """Which records need distances, of which width, and what that costs."""
        distance = self._distance
        nothing = np.zeros(len(sizes), bool)
        if not distance.any():
            self.cost, self._near, self._wide = unit * sizes, nothing, nothing
            return
        self._near = _count(distance != 0, self._offsets) > 0
        self._zero = self._far16 = self._far8 = _beyond(distance, 127)
        self._wide, extra = nothing, 1.0 * sizes
        if self._far8.any():
            # Minus zero where 0.0 stands, or the reverse.
            self._zero = (self._values == 0) & (distance == np.iinfo(np.int64).min)
            self._far8, self._far16 = self._far8 & ~self._zero, _beyond(distance, 32767) & ~self._zero
            eight, sixteen = 8.0 * _count(self._far8, self._offsets), 8.0 * _count(self._far16, self._offsets)
            self._wide = sizes + sixteen < eight
            extra = np.where(self._wide, 2.0 * sizes + sixteen, sizes + eight)
        self.cost = unit * sizes + np.where(self._near, np.inf if exact else extra, 0.0)

    def emit(self, chosen: Int64[np.ndarray, " some"], places: Int64[np.ndarray, " all"], packed: Packed) -> None:
        """Write the records whose places among all were chosen for this guess."""
        if not len(chosen):
            return
        rows = np.searchsorted(self._row, chosen)
        packed.forms[places[chosen]] = self._form
        _put(packed.main, places[chosen], self._cut(self._main.tobytes(), rows, self._width))
        near = self._near[rows]
        for wide in (False, True):
            some = near & (self._wide[rows] == wide)
            if some.any():
                self._emit_near(rows[some], places[chosen[some]], packed, wide=wide)

    def _emit_near(
        self, rows: Int64[np.ndarray, " some"], places: Int64[np.ndarray, " some"], packed: Packed, *, wide: bool
    ) -> None:
        far = self._far16 if wide else self._far8
        codes = self._distance.astype("<i2" if wide else np.int8)
        codes[far] = _escape(wide)
        codes[self._zero] = -_escape(wide) - 1
        _put(packed.near, places, self._cut(codes.tobytes(), rows, 2 if wide else 1))
        packed.forms[places] |= NEAR16 if wide else NEAR8
        set_places = np.flatnonzero(far)
        if not len(set_places):
            return
        full = self._values[set_places].astype("<f8").tobytes()
        before = np.searchsorted(set_places, self._offsets)
        first, last = before[rows], before[rows + 1]
        _put(packed.full, places, _pieces(full, 8 * first, 8 * last))
        packed.forms[places[last > first]] |= FULL

    def _cut(self, data: bytes, rows: Int64[np.ndarray, " some"], width: int) -> Iterator[bytes]:
        """What stands for the values of some rows, where each value takes so many bytes."""
        return _pieces(data, width * self._offsets[rows], width * self._offsets[rows + 1])


def _pieces(data: bytes, starts: Int64[np.ndarray, " some"], ends: Int64[np.ndarray, " some"]) -> Iterator[bytes]:
    return map(data.__getitem__, map(slice, starts.tolist(), ends.tolist()))


def _put(column: list[bytes], places: Int64[np.ndarray, " some"], values: Iterator[bytes]) -> None:
    """Put values into a column at places that ascend."""
    if len(places) == len(column):
        column[:] = values
        return
    for place, value in zip(places.tolist(), values, strict=True):
        column[place] = value


def _beyond(distance: Int64[np.ndarray, " values"], most: int) -> Bool[np.ndarray, " values"]:
    """Which distances an integer cannot say: from -most to most - 1 it can, since two of its values mean else."""
    return (distance + most).view(np.uint64) > 2 * most - 1  # modulo 2**64


def _escape(wide: bool) -> int:
    return -32768 if wide else -128


def _count(mask: Bool[np.ndarray, " values"], offsets: Int64[np.ndarray, " ends"]) -> Int64[np.ndarray, " records"]:
    """How many are set in each record."""
    set_places = np.flatnonzero(mask)
    return np.diff(np.searchsorted(set_places, offsets)) if len(set_places) else np.zeros(len(offsets) - 1, np.int64)


def _numbers(arrays: Arrays, kind: int, scale: int) -> np.ndarray:
    """What would stand for the values: int32 counts or float32; 0 where a value is out of range."""
    values = arrays.values
    with np.errstate(all="ignore"):
        if kind == FRACTIONAL and arrays.field == "positions":
            values = _fractional(arrays)
        if scale:
            factor = SCALES[arrays.field][scale - 1]
            values = (
                values * np.repeat(arrays.natoms, np.diff(arrays.offsets)) if factor == PER_ATOM else values / factor
            )
        if kind == SINGLE:
            return values.astype("<f4")
        counts = values * UNIT
        np.rint(counts, out=counts)
        most, kept = (LONGEST, "<i8") if widths(arrays.field)[kind] == 8 else (LARGEST, "<i4")
        if len(counts) and not (counts.min() >= -most and counts.max() <= most):
            counts = np.where(np.abs(counts) <= most, counts, 0.0)
        return counts.astype(kept)


def _fractional(arrays: Arrays) -> Float64[np.ndarray, " values"]:
    """Coordinates in the cell; zero for a cell without volume."""
    assert arrays.cells is not None
    a, b, c = arrays.cells.transpose(1, 2, 0)  # each a vector's three coordinates, one value a record
    columns = np.array([_cross(b, c), _cross(c, a), _cross(a, b)])
    determinant = (a * columns[0]).sum(axis=0)
    sound = (np.abs(determinant) > 1e-6) & np.isfinite(determinant)
    inverse = np.where(sound, columns / np.where(sound, determinant, 1.0), 0.0).transpose(2, 1, 0)
    return _transformed(arrays.values, repeat_cells(inverse, arrays.natoms))


def _cross(
    a: Float64[np.ndarray, "3 records"], b: Float64[np.ndarray, "3 records"]
) -> Float64[np.ndarray, "3 records"]:
    """The product of two vectors; numpy's own takes ten times as long."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def repeat_cells(
    cells: Float64[np.ndarray, "records 3 3"], natoms: Int64[np.ndarray, " records"]
) -> Float64[np.ndarray, "3 3 atoms"]:
    """Each record's cell once for each of its atoms, as restore needs them."""
    return np.repeat(np.ascontiguousarray(cells.reshape(-1, 9).T), natoms, axis=1).reshape(3, 3, -1)


def restore(
    form: int,
    numbers: Shaped[np.ndarray, "..."],
    *,
    field: str,
    cells: Float64[np.ndarray, "3 3 rows"] | None = None,
    natoms: Int64[np.ndarray, " values"] | int = 0,
) -> Float64[np.ndarray, " values"]:
    """The values that numbers stand for; cells one a row of three (or one for all), axes first; natoms one a value.

    The order of operations is part of the format.
    """
    kind, scale = form & KIND, form >> SCALE
    values = numbers.astype(np.float64) if kind in (RAW, SINGLE) else numbers / UNIT
    fractional = kind == FRACTIONAL and field == "positions"
    if not (fractional or scale):
        return values
    with np.errstate(all="ignore"):  # a cell may hold anything
        if fractional:
            assert cells is not None
            values = _transformed(values, cells)
        if scale:
            factor = SCALES[field][scale - 1]
            values = values / natoms if factor == PER_ATOM else values * factor
    return values


def _transformed(
    values: Float64[np.ndarray, " values"], cells: Float64[np.ndarray, "3 3 rows"]
) -> Float64[np.ndarray, " values"]:
    """Each row of three times its matrix; the order of operations is part of the format."""
    a, b, c = values.reshape(-1, 3).T
    found = np.empty((len(a), 3))
    for axis in range(3):
        found[:, axis] = a * cells[0, axis] + b * cells[1, axis] + c * cells[2, axis]
    return found.reshape(-1)


def near_values(form: int, values: Float64[np.ndarray, " values"], near: bytes) -> Bool[np.ndarray, " values"] | None:
    """Move values by their distances, in place; which of them stand in full elsewhere, None where none does."""
    wide = bool(form & NEAR16)
    codes = np.frombuffer(near, "<i2" if wide else np.int8)
    bits = values.view(np.int64)
    bits += codes
    zero = codes == -_escape(wide) - 1
    if zero.any():
        bits[zero] += np.iinfo(np.int64).max + _escape(wide) + 2  # not the code but the sign bit, modulo 2**64
    return codes == _escape(wide) if form & FULL else None
