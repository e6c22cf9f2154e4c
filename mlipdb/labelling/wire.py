"""Messages between a process and a teacher's worker in another environment: JSON and plain arrays, never objects."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from mlipdb.errors import CorruptError
from mlipdb.labelling.teacher import LabelRequest
from mlipdb.labels import ARRAYS, FIELDS, Label
from mlipdb.structures import Structure

PROTOCOL = 2  # raised with every change of what is said here
MAGIC = b"mlipdbW1"
DTYPES = ("<f8", "<i4", "|u1", "|b1")
LABEL_ARRAYS = (*ARRAYS, "hessian_row_numbers")
SCALARS = tuple(name for name in FIELDS if name not in (*LABEL_ARRAYS, "method", "method_id"))
_LENGTHS = struct.Struct("<8sQ")


@dataclass(frozen=True, eq=False)
class Message:
    """What is said: a word, JSON values, and arrays by name."""

    word: str
    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@runtime_checkable
class Readable(Protocol):
    """A pipe or file to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, or fewer at the end."""
        ...


@runtime_checkable
class Writable(Protocol):
    """A pipe or file to write bytes to."""

    def write(self, data: bytes, /) -> object:
        """Take all bytes."""
        ...

    def flush(self) -> object:
        """Pass on what was taken."""
        ...


def send(stream: Writable, message: Message) -> None:
    """Write a message: a magic word, the length of the JSON, the JSON, and the bytes of the arrays in its order."""
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    described = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    head = json.dumps(
        {"word": message.word, "values": dict(message.values), "arrays": described}, default=float
    ).encode()
    stream.write(_LENGTHS.pack(MAGIC, len(head)) + head)
    for array in arrays.values():
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: Readable) -> Message | None:
    """The next message, or None where the other side is gone, even in the middle of one.

    Raises CorruptError for bytes that are no message.
    """
    start = stream.read(_LENGTHS.size)
    if len(start) < _LENGTHS.size:
        return None
    magic, length = _LENGTHS.unpack(start)
    if magic != MAGIC:
        raise CorruptError(f"{start!r} from a teacher's worker is no message; nothing else may write to its pipe")
    text = stream.read(length)
    if len(text) < length:
        return None
    head = json.loads(text)
    arrays = {}
    for name, dtype, shape in head["arrays"]:
        if dtype not in DTYPES:
            raise CorruptError(f"array {name!r} from a teacher's worker has the type {dtype!r}, not one of {DTYPES}")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        data = stream.read(size)
        if len(data) < size:
            return None
        arrays[name] = np.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
    return Message(head["word"], head["values"], arrays)


def pack_structures(structures: Sequence[Structure]) -> Message:
    """Structures as flat arrays; charge and multiplicity, which may be missing, as JSON."""
    return Message(
        "structures",
        {
            "counts": [len(structure) for structure in structures],
            "pbc": [list(structure.pbc) for structure in structures],
            "charges": [structure.charge for structure in structures],
            "spins": [structure.spin_multiplicity for structure in structures],
        },
        {
            "atomic_numbers": _joined([structure.atomic_numbers for structure in structures], "u1"),
            "positions": _joined([structure.positions for structure in structures], "<f8"),
            "cells": _joined([structure.cell for structure in structures], "<f8"),
        },
    )


def unpack_structures(message: Message) -> list[Structure]:
    """The inverse of pack_structures; ids stay behind."""
    values, arrays = message.values, message.arrays
    ends = np.cumsum(values["counts"], dtype=int)
    numbers = np.split(arrays["atomic_numbers"], ends)
    positions = np.split(arrays["positions"].reshape(-1, 3), ends)
    cells = arrays["cells"].reshape(-1, 3, 3)
    return [
        Structure(
            numbers[k], positions[k], cells[k], (pbc[0], pbc[1], pbc[2]), values["charges"][k], values["spins"][k]
        )
        for k, pbc in enumerate(values["pbc"])
    ]


def pack_request(structures: Sequence[Structure], request: LabelRequest) -> Message:
    """What to label and what to compute for it."""
    packed = pack_structures(structures)
    rows = {
        "base": request.base,
        "rows": [len(numbers) for numbers in request.hessian_row_numbers],
    }
    numbers = _joined(list(request.hessian_row_numbers), "<i4")
    return Message("label", {**packed.values, **rows}, {**packed.arrays, "row_numbers": numbers})


def unpack_request(message: Message) -> tuple[list[Structure], LabelRequest]:
    """The inverse of pack_request."""
    ends = np.cumsum(message.values["rows"], dtype=int)[:-1]
    numbers: list[Int32[np.ndarray, " _"]] = np.split(message.arrays["row_numbers"], ends)
    return unpack_structures(message), LabelRequest(base=message.values["base"], hessian_row_numbers=numbers)


def pack_labels(labels: Sequence[Label]) -> Message:
    """Labels: scalars as JSON, which keeps every bit of a float64, and of each array all labels' values in a row."""
    scalars = [{name: _plain(getattr(label, name)) for name in SCALARS} for label in labels]
    shapes, arrays = {}, {}
    for name in LABEL_ARRAYS:
        present = [getattr(label, name) for label in labels]
        shapes[name] = [None if array is None else list(array.shape) for array in present]
        arrays[name] = _joined([array for array in present if array is not None], _stored(name))
    return Message("labels", {"scalars": scalars, "shapes": shapes}, arrays)


def unpack_labels(message: Message) -> list[Label]:
    """The inverse of pack_labels."""
    fields = [dict(scalars) for scalars in message.values["scalars"]]
    for name, shapes in message.values["shapes"].items():
        flat, first = message.arrays[name], 0
        for label, shape in zip(fields, shapes, strict=True):
            if shape is not None:
                last = first + math.prod(shape)
                label[name] = flat[first:last].reshape(shape)
                first = last
    return [Label(**label) for label in fields]


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _stored(name: str) -> str:
    return "<i4" if name == "hessian_row_numbers" else "<f8"


def _joined(arrays: Sequence[np.ndarray], dtype: str) -> np.ndarray:
    """All values in one row."""
    return np.concatenate([np.zeros(0, dtype), *(np.asarray(array, dtype).ravel() for array in arrays)])
