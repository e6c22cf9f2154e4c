"""Nested lists of a Parquet batch as numpy, whole columns at a time: a row then costs a slice, not a Python list."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mlipdb.errors import MlipdbError


class ColumnError(MlipdbError):
    """A value of a column that does not have the shape it must have; its record goes to quarantine."""


class Vectors:
    """A column of lists of vectors, such as positions: row i is a (count, width) array, or None where it is null.

    Raises ColumnError where the column is not of that type.
    """

    def __init__(self, column: Any, *, name: str, width: int = 3) -> None:
        self._name, self._width = name, width
        column = _lists(column, name, depth=2)
        self._valid: Bool[np.ndarray, " rows"] = _valid(column)
        self._outer: Int64[np.ndarray, " ends"] = column.offsets.to_numpy().astype(np.int64)
        inner = column.values
        self._ends: Int64[np.ndarray, " ends"] = inner.offsets.to_numpy().astype(np.int64)
        self._values: Float64[np.ndarray, " numbers"] = inner.values.to_numpy(zero_copy_only=False).astype(np.float64)
        # Nearly always every vector has the width, so that it is checked for the whole column at once.
        self._even = bool((np.diff(self._ends) == width).all())

    def __getitem__(self, row: int) -> Float64[np.ndarray, "vectors width"] | None:
        if not self._valid[row]:
            return None
        first, last = self._outer[row], self._outer[row + 1]
        begin, end = self._ends[first], self._ends[last]
        if not self._even and (np.diff(self._ends[first : last + 1]) != self._width).any():
            raise ColumnError(f"{self._name} has vectors that are not of {self._width} numbers")
        return self._values[begin:end].reshape(-1, self._width)


class Numbers:
    """A column of lists of numbers, such as atomic_numbers: row i is an array, or None where it is null.

    Raises ColumnError where the column is not of that type, or a number of a row that is asked for is null.
    """

    def __init__(self, column: Any, *, name: str, kind: type = np.float64) -> None:
        self._name, self._kind = name, kind
        column = _lists(column, name, depth=1)
        self._valid: Bool[np.ndarray, " rows"] = _valid(column)
        self._ends: Int64[np.ndarray, " ends"] = column.offsets.to_numpy().astype(np.int64)
        values = column.values.to_numpy(zero_copy_only=False)
        self._values = values.astype(kind) if not np.isnan(values).any() else values

    def __getitem__(self, row: int) -> np.ndarray | None:
        if not self._valid[row]:
            return None
        values = self._values[self._ends[row] : self._ends[row + 1]]
        if values.dtype != self._kind and np.isnan(values).any():
            raise ColumnError(f"{self._name} holds a null")
        return np.asarray(values.astype(self._kind, copy=False))


class Words:
    """A column of lists of texts that repeat, such as element symbols, as the numbers that a table gives them."""

    def __init__(self, column: Any, table: dict[str, int]) -> None:
        self._valid: Bool[np.ndarray, " rows"] = _valid(column)
        self._ends: Int64[np.ndarray, " ends"] = column.offsets.to_numpy().astype(np.int64)
        packed = column.values.dictionary_encode()
        numbers = np.array([table.get(word, 0) for word in packed.dictionary.to_pylist()] + [0], dtype=np.int64)
        places = packed.indices.fill_null(len(numbers) - 1).to_numpy(zero_copy_only=False)
        self._values: Int64[np.ndarray, " words"] = numbers[places]

    def __getitem__(self, row: int) -> Int64[np.ndarray, " words"] | None:
        return self._values[self._ends[row] : self._ends[row + 1]] if self._valid[row] else None


def _lists(column: Any, name: str, *, depth: int) -> Any:
    """The column as plain lists of float64, of fixed size or large as they may be in the file."""
    import pyarrow as pa

    kind = pa.list_(pa.float64()) if depth == 1 else pa.list_(pa.list_(pa.float64()))
    try:
        if depth == 1 and pa.types.is_boolean(column.type.value_type):
            column = column.cast(pa.list_(pa.int8()))  # there is no way from booleans to numbers with a point
        return column if column.type == kind else column.cast(kind)
    except (pa.ArrowException, AttributeError) as error:
        raise ColumnError(f"the column {name!r} is of type {column.type}; expected {kind}") from error


def _valid(column: Any) -> Bool[np.ndarray, " rows"]:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
