"""Makes records of format 2; many at a time, since each step then costs little a record."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, compress
from operator import attrgetter
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import zstandard
from jaxtyping import Float64

from mlipdb.labels import Label
from mlipdb.store.dictionary import DICTIONARY
from mlipdb.store.floats import Arrays, pack
from mlipdb.store.layout import ARRAYS, BIT, HEAD, HEADER, SCALARS, VERSION, close, seed
from mlipdb.store.memory import keep_freed_memory
from mlipdb.store.record import MAGIC, record_flags
from mlipdb.structures import Structure

# Two thirds of the time of zstd's level 3 for the same size; any choice can be read.
PARAMETERS = zstandard.ZstdCompressionParameters(
    window_log=20,
    hash_log=12,
    chain_log=12,
    min_match=4,
    strategy=zstandard.STRATEGY_FAST,
    write_content_size=True,
    write_dict_id=False,
)
_structure_scalars, _label_scalars = attrgetter(*SCALARS[:2]), attrgetter(*SCALARS[2:])
_NO_STRUCTURE, _NO_LABEL = (None,) * 2, (None,) * len(SCALARS[2:])  # what a record without it has as scalars
_SCALAR_BITS = np.array([BIT[name] for name in SCALARS])
_LABEL_ARRAYS = ("forces", "stress", "magmoms", "atomic_energies", "hessian_rows", "hessian_row_numbers")
_label_arrays = attrgetter(*_LABEL_ARRAYS)
TOGETHER = 2048  # records: enough that numpy's calls cost little, few enough that their arrays stay in the cache
Pair = tuple[Structure | None, Label | None]


class Encoded(NamedTuple):
    """A record without its checksum, which covers the id that the record is stored under."""

    data: bytes


def seal(structure_id: int, record: Encoded) -> bytes:
    """The bytes to store under an id."""
    return close(record.data, structure_id)


def seal_all(ids: Sequence[int], records: Sequence[Encoded]) -> list[tuple[bytes, bytes]]:
    """Keys and bytes to store, in one pass."""
    return [
        (identity.to_bytes(8), record.data + crc32(record.data, seed(identity)).to_bytes(4, "little"))
        for identity, record in zip(ids, records, strict=True)
    ]


class Encoder:
    """Makes record bytes. Holds a compressor, so one per thread."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._compress = zstandard.ZstdCompressor(compression_params=PARAMETERS, dict_data=DICTIONARY).compress

    def encode(self, structure_id: int, structure: Structure | None, label: Label | None) -> bytes:
        """Bytes of a structure, a label or both; at least one must be given."""
        return seal(structure_id, self.prepare([(structure, label)])[0])

    def prepare(self, pairs: Sequence[Pair]) -> list[Encoded]:
        """All of the records' bytes but their checksums. A label alone has its atoms from its arrays."""
        squeeze = self._compress
        heads = [_HEADERS[record_flags(structure, label)] for structure, label in pairs]
        return [Encoded(head + squeeze(data)) for head, data in zip(heads, payloads(pairs), strict=True)]


_HEADERS = [HEADER.pack(MAGIC, VERSION, flags) for flags in range(256)]


def payloads(pairs: Sequence[Pair]) -> list[bytes]:
    """What is inside the records' frames."""
    done: list[bytes] = []
    for start in range(0, len(pairs), TOGETHER):
        drafts = _Drafts(pairs[start : start + TOGETHER])
        for field in ARRAYS:
            drafts.pack(field)
        done += drafts.payloads()
    return done


class _Drafts:
    """Records on their way, column by column: what their arrays are, and the bytes that they became."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs, self._count = pairs, len(pairs)
        self._structures = [(place, one) for place, (one, _) in enumerate(pairs) if one is not None]
        self._labels = [(place, one) for place, (_, one) in enumerate(pairs) if one is not None]
        self._mask = np.zeros(self._count, np.int64)
        self._natoms = np.zeros(self._count, np.int64)
        self._forms: list[list[bytes]] = []
        self._parts: tuple[list[list[bytes]], ...] = ([], [], [])  # main, near and full of each field
        self._row_numbers = self._numbers = self._names = self._nothing = [b""] * self._count
        self._cells: Float64[np.ndarray, "structures 3 3"] = np.zeros((0, 3, 3))
        self._take_structures()
        self._arrays = self._label_arrays()
        self._take_atoms()
        self._take_names()

    def _take_structures(self) -> None:
        self._numbers = self._nothing.copy()
        for place, structure in self._structures:
            self._numbers[place] = np.asarray(structure.atomic_numbers, np.uint8).tobytes()
        self._natoms[...] = list(map(len, self._numbers))
        self._mask[[place for place, _ in self._structures]] |= BIT["atomic_numbers"]

    def _take_atoms(self) -> None:
        """A label without its structure has its atoms from an array, and none where it has no array per atom."""
        lonely = self._count - len(self._structures)
        for name, axis in (("forces", 0), ("atomic_energies", 0), ("magmoms", 0), ("hessian_rows", 1)):
            for place, array in zip(*self._arrays[name], strict=True) if lonely else ():
                self._natoms[place] = self._natoms[place] or np.shape(array)[axis]

    def _take_names(self) -> None:
        """Row numbers and names of properties, which are no arrays of floats."""
        places, numbers = self._arrays["hessian_row_numbers"]
        if places:
            self._row_numbers = self._nothing.copy()
            self._mask[places] |= BIT["hessian_row_numbers"]
        for place, rows in zip(places, numbers, strict=True):
            self._row_numbers[place] = np.asarray(rows, "<i4").tobytes()
        named = [(place, label.properties) for place, label in self._labels if label.properties]
        if named:
            self._names = self._nothing.copy()
        for place, properties in named:
            self._names[place] = _joined(tuple(properties))
        self._properties = [place for place, _ in named], [list(given.values()) for _, given in named]

    def _label_arrays(self) -> dict[str, tuple[list[int], list[Any]]]:
        """Places and values of each array of the labels that have it."""
        places = [place for place, _ in self._labels]
        columns = zip(*(_label_arrays(label) for _, label in self._labels), strict=True)
        found: dict[str, tuple[list[int], list[Any]]] = {name: ([], []) for name in _LABEL_ARRAYS}
        for name, column in zip(_LABEL_ARRAYS, columns, strict=False):  # no label, no columns
            some = [value is not None for value in column]
            found[name] = list(compress(places, some)), list(compress(column, some))
        return found

    def pack(self, field: str) -> None:
        """Turn one field of all records into bytes."""
        places, sizes, values = self._gathered(field)
        if not len(places):
            return
        if field != "scalars":
            self._mask[places] |= BIT[field]
        if field == "cell":
            self._cells = values.reshape(-1, 3, 3)
        cells = self._cells if field == "positions" else None
        packed = pack(Arrays(field, values, np.cumsum([0, *sizes]), self._natoms[places], cells))
        forms = list(map(_FORMS.__getitem__, packed.forms.tolist()))
        self._forms.append(self._spread(places, forms))
        for column, parts in zip(self._parts, (packed.main, packed.near, packed.full), strict=True):
            if any(parts):
                column.append(self._spread(places, parts))

    def _gathered(self, field: str) -> tuple[Sequence[int], Sequence[int], Float64[np.ndarray, " values"]]:
        """Which records have a field, how many values each has, and all values end to end."""
        if field == "scalars":
            return self._scalars()
        if field == "properties":
            places, lists = self._properties
            return places, list(map(len, lists)), np.array(list(chain.from_iterable(lists)), np.float64)
        if field in ("cell", "positions"):
            places = [place for place, _ in self._structures]
            arrays = [getattr(structure, field) for _, structure in self._structures]
        else:
            places, arrays = self._arrays[field]
        if not arrays:
            return [], [], np.zeros(0)
        sizes = [array.size for array in arrays]
        whole = arrays if field != "hessian_rows" else [array.reshape(-1) for array in arrays]
        return places, sizes, np.concatenate(whole).reshape(-1).astype(np.float64, copy=False)

    def _scalars(self) -> tuple[Sequence[int], Sequence[int], Float64[np.ndarray, " values"]]:
        """The scalars of each record one after another."""
        of_structures = [_NO_STRUCTURE if one is None else _structure_scalars(one) for one, _ in self._pairs]
        of_labels = [_NO_LABEL if one is None else _label_scalars(one) for _, one in self._pairs]
        flat = list(chain.from_iterable(chain.from_iterable(zip(of_structures, of_labels, strict=True))))
        has = np.array([value is not None for value in flat], bool).reshape(-1, len(SCALARS))
        self._mask |= has @ _SCALAR_BITS
        sizes = has.sum(axis=1)
        some = np.flatnonzero(sizes)
        values = np.array([value for value in flat if value is not None], np.float64)
        return some.tolist(), sizes[some].tolist(), values

    def _spread(self, places: Sequence[int], values: list[bytes]) -> list[bytes]:
        """A column with these values at their places."""
        if len(places) == self._count:
            return values
        column = self._nothing.copy()
        for place, value in zip(places, values, strict=True):
            column[place] = value
        return column

    def payloads(self) -> list[bytes]:
        """What the frames hold."""
        masks = self._mask.astype("<u4").tobytes()
        starts = [masks[at : at + 4] for at in range(0, len(masks), 4)]
        signatures = list(map(b"".join, zip(starts, *self._forms, self._names, strict=True)))
        rows = [len(numbers) // 4 for numbers in self._row_numbers]
        heads = map(HEAD.pack, self._natoms.tolist(), rows, map(len, signatures))
        main, near, full = self._parts
        columns = zip(heads, signatures, self._row_numbers, *main, self._numbers, *near, *full, strict=True)
        return list(map(b"".join, columns))


_FORMS = [bytes([form]) for form in range(256)]


@lru_cache(maxsize=4096)
def _joined(names: tuple[str, ...]) -> bytes:
    return "\0".join(names).encode()
