"""Makes records of format 2; many at a time, since each step then costs little a record."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any
from zlib import crc32

import numpy as np
import zstandard

from mlipdb.labels import Label
from mlipdb.store.dictionary import DICTIONARY
from mlipdb.store.floats import Arrays, pack
from mlipdb.store.layout import ARRAYS, BIT, HEAD, HEADER, SCALARS, VERSION, close, seed
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
_STRUCTURE_SCALARS, _LABEL_SCALARS = SCALARS[:2], SCALARS[2:]
_LABEL_ARRAYS = ("forces", "stress", "magmoms", "atomic_energies", "hessian_rows")
Pair = tuple[Structure | None, Label | None]


@dataclass(frozen=True)
class Encoded:
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
        self._compress = zstandard.ZstdCompressor(compression_params=PARAMETERS, dict_data=DICTIONARY).compress

    def encode(self, structure_id: int, structure: Structure | None, label: Label | None) -> bytes:
        """Bytes of a structure, a label or both; at least one must be given."""
        return seal(structure_id, self.prepare([(structure, label)])[0])

    def prepare(self, pairs: Sequence[Pair]) -> list[Encoded]:
        """All of the records' bytes but their checksums. A label alone has its atoms from its arrays."""
        compress, drafts = self._compress, _drafts(pairs)
        return [Encoded(HEADER.pack(MAGIC, VERSION, draft.flags) + compress(draft.payload())) for draft in drafts]


def payloads(pairs: Sequence[Pair]) -> list[bytes]:
    """What is inside the records' frames."""
    return [draft.payload() for draft in _drafts(pairs)]


def _drafts(pairs: Sequence[Pair]) -> "list[_Draft]":
    drafts = [_Draft(structure, label) for structure, label in pairs]
    for field in ARRAYS:
        _pack_field(field, drafts)
    return drafts


class _Draft:
    """A record on its way: what its arrays are, and the bytes that they became."""

    row_numbers = numbers = names = b""
    mask = natoms = rows = 0

    def __init__(self, structure: Structure | None, label: Label | None) -> None:
        self.flags = record_flags(structure, label)
        self.arrays: dict[str, Any] = {}
        self.forms = bytearray()
        self.main: list[bytes] = []
        self.near: list[bytes] = []
        self.full: list[bytes] = []
        if structure is not None:
            self.numbers = np.asarray(structure.atomic_numbers, np.uint8).tobytes()
            self.natoms = len(self.numbers)
            self.mask = BIT["atomic_numbers"] | BIT["cell"] | BIT["positions"]
            self.arrays["cell"], self.arrays["positions"] = structure.cell, structure.positions
        scalars = [] if structure is None else self._present(_STRUCTURE_SCALARS, structure)
        if label is not None:
            scalars += self._present(_LABEL_SCALARS, label)
            self._take_label(label)
            if structure is None:
                self.natoms = self._natoms()
        if scalars:
            self.arrays["scalars"] = scalars

    def _present(self, names: tuple[str, ...], owner: object) -> list[float | int]:
        """The numbers of the owner that are not None, noted in the mask."""
        found = []
        for name in names:
            value = getattr(owner, name)
            if value is not None:
                self.mask |= BIT[name]
                found.append(value)
        return found

    def _take_label(self, label: Label) -> None:
        for name in _LABEL_ARRAYS:
            value = getattr(label, name)
            if value is not None:
                self.arrays[name] = value
                self.mask |= BIT[name]
        if label.properties:
            self.names = _joined(tuple(label.properties))
            self.arrays["properties"] = list(label.properties.values())
            self.mask |= BIT["properties"]
        if label.hessian_row_numbers is not None:
            self.row_numbers = np.asarray(label.hessian_row_numbers, "<i4").tobytes()
            self.rows = len(self.row_numbers) // 4
            self.mask |= BIT["hessian_row_numbers"]

    def _natoms(self) -> int:
        """Atoms of a label without its structure; 0 when it has no array per atom."""
        for name, axis in (("forces", 0), ("atomic_energies", 0), ("magmoms", 0), ("hessian_rows", 1)):
            if name in self.arrays:
                return int(np.shape(self.arrays[name])[axis])
        return 0

    def payload(self) -> bytes:
        """What the frame holds."""
        signature = self.mask.to_bytes(4, "little") + self.forms + self.names
        head = HEAD.pack(self.natoms, self.rows, len(signature))
        return b"".join((head, signature, self.row_numbers, *self.main, self.numbers, *self.near, *self.full))


@lru_cache(maxsize=4096)
def _joined(names: tuple[str, ...]) -> bytes:
    return "\0".join(names).encode()


def _pack_field(field: str, drafts: Sequence[_Draft]) -> None:
    """Turn one field of all records into bytes."""
    owners = [draft for draft in drafts if field in draft.arrays]
    if not owners:
        return
    arrays = [owner.arrays[field] for owner in owners]
    if field in ("scalars", "properties"):
        sizes = list(map(len, arrays))
        values = np.array(list(chain.from_iterable(arrays)), np.float64)
    else:
        sizes = [array.size for array in arrays]
        whole = arrays if field != "hessian_rows" else [array.reshape(-1) for array in arrays]
        values = np.concatenate(whole).reshape(-1).astype(np.float64, copy=False)
    natoms = np.array([owner.natoms for owner in owners])
    cells = None
    if field == "positions":
        cells = (
            np.concatenate([owner.arrays["cell"] for owner in owners]).reshape(-1, 3, 3).astype(np.float64, copy=False)
        )
    packed = pack(Arrays(field, values, np.cumsum([0, *sizes]), natoms, cells))
    for owner, form, main, near, full in zip(owners, packed.forms, packed.main, packed.near, packed.full, strict=True):
        owner.forms.append(form)
        owner.main.append(main)
        if near:
            owner.near.append(near)
        if full:
            owner.full.append(full)
