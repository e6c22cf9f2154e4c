"""The answer of a query: ids, and the structures when asked for."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from mlipdb.structures import Structure


@runtime_checkable
class _Reads(Protocol):
    def structures(self, ids: Sequence[int] | np.ndarray) -> list[Structure]: ...


class Selection:
    """Structures that a filter selected, by ascending id. Iterating reads them; ids alone costs nothing."""

    def __init__(self, database: _Reads, filter: str, ids: Int64[np.ndarray, " structures"]) -> None:
        self._database = database
        self.filter = filter
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Structure]:
        for start in range(0, len(self.ids), 1024):
            yield from self._database.structures(self.ids[start : start + 1024])

    def __repr__(self) -> str:
        return f"Selection({self.filter!r}: {len(self)} structures)"
