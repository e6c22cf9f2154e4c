"""Fair samples of bounded size of a stream of unknown length: of frames, and of whole materials."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int64

LARGE = 16  # a group with more than this part of the capacity is cut
Rows = dict[str, np.ndarray]


class RowSample:
    """At most capacity rows of all that were added, each with the same chance; the same stream gives the same rows."""

    def __init__(self, capacity: int, *, seed: int) -> None:
        self._capacity = capacity
        self._random = np.random.default_rng(seed)
        self._parts: list[Rows] = []
        self._held = 0
        self.seen = 0

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Take rows in: arrays of one length by name."""
        length = len(next(iter(rows.values())))
        self.seen += length
        self._held += length
        self._parts.append({**rows, "_chance": self._random.random(length)})
        if self._held > 2 * self._capacity:
            self._keep()

    def rows(self) -> Rows:
        """The sample in the order of arrival; no key at all before the first row."""
        self._keep()
        return {name: values for name, values in _joined(self._parts).items() if name != "_chance"}

    def _keep(self) -> None:
        rows = _joined(self._parts)
        if self._held > self._capacity:
            chosen = np.sort(np.argpartition(rows["_chance"], self._capacity)[: self._capacity])
            rows = {name: values[chosen] for name, values in rows.items()}
            self._held = self._capacity
        self._parts = [rows] if rows else []


class GroupSample:
    """All rows of some groups, chosen by a hash of the group's number so that at most capacity rows are held.

    Of a group that alone is a large part of the capacity only the first rows are held.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._parts: list[Rows] = []
        self._held = 0
        self._limit = 1 << 32

    def add(self, groups: Int64[np.ndarray, " rows"], rows: Mapping[str, np.ndarray]) -> None:
        """Take the rows of groups that are in the sample so far."""
        place = _scattered(groups)
        self._append({"group": groups, "_place": place, **rows}, place < self._limit)
        if self._held > self._capacity:
            self._again(_first_of_groups(self._joined()["group"], self._capacity // LARGE))
        while self._held > self._capacity:
            self._limit //= 2
            self._again(self._joined()["_place"] < self._limit)

    def rows(self) -> Rows:
        """The sample in the order of arrival, with the number of its group; no key at all before the first row."""
        return _joined(self._parts)

    def _joined(self) -> Rows:
        self._parts = [_joined(self._parts)]
        return self._parts[0]

    def _again(self, chosen: Bool[np.ndarray, " rows"]) -> None:
        """Keep some of the rows only."""
        rows, self._parts, self._held = self._joined(), [], 0
        self._append(rows, chosen)

    def _append(self, rows: Rows, chosen: Bool[np.ndarray, " rows"]) -> None:
        self._parts.append({name: values[chosen] for name, values in rows.items()})
        self._held += int(chosen.sum())


def _first_of_groups(groups: Int64[np.ndarray, " rows"], count: int) -> Bool[np.ndarray, " rows"]:
    """True for the first rows of each group."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    lengths = np.diff(starts, append=len(ordered))
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return np.asarray(rank < count)


def _scattered(groups: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
    """Numbers below 2**32 that have nothing to do with the order of the groups (Knuth's multiplicative hash)."""
    return (groups * 2_654_435_761) & 0xFFFFFFFF


def _joined(parts: list[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
