"""The facets that a filter needs, read at once: a bit for each structure, in the order of the ids."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlipdb.catalog import Facet
from mlipdb.catalog.facets import LABEL_IDS, STRUCTURE_IDS, shards_without_facets
from mlipdb.catalog.packing import Bits, IdRange, bitmap, full_bitmap, unpack_column, unpack_ids, unpack_set

Ids = Int64[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class Truth:
    """Where a condition is true and where it is false; a structure in neither has an unknown value in it."""

    true: Bits
    false: Bits


@dataclass(frozen=True, eq=False)
class _Block:
    """A structures shard: its ids and the bytes of every bitmap that are its own."""

    ids: IdRange
    place: slice


class Bitmaps:
    """Bitmaps over all structures, each shard's from a byte of its own on."""

    def __init__(self, session: Session, facets: dict[str, list[tuple[int, bytes]]]) -> None:
        self.session = session
        self._facets = facets
        self._blocks: dict[int, _Block] = {}
        found = [(shard, unpack_ids(data)) for shard, data in facets[STRUCTURE_IDS]]
        start = 0
        for shard, ids in sorted(found, key=lambda item: item[1].first):
            end = start + -(-ids.rows // 8)
            self._blocks[shard] = _Block(ids, slice(start, end))
            start = end
        self._size = start
        self._labelled = {shard: unpack_ids(data) for shard, data in facets[LABEL_IDS]}
        self.everything = self._collect(lambda block: full_bitmap(block.ids.rows))

    def _collect(self, part: Callable[[_Block], Bits]) -> Bits:
        whole = np.zeros(self._size, dtype=np.uint8)
        for block in self._blocks.values():
            whole[block.place] = part(block)
        return whole

    def decide(self, true: Bits) -> Truth:
        """The truth of a condition that is known of every structure."""
        return Truth(true, self.everything & ~true)

    def rows_in(self, name: str) -> Bits:
        """The structures of a set; a shard without it has none."""
        whole = np.zeros(self._size, dtype=np.uint8)
        for shard, data in self._facets[name]:
            whole[self._blocks[shard].place] = unpack_set(data)
        return whole

    def rows_where(self, name: str, holds: Callable[[Any], Any]) -> Bits:
        """The structures with some value that holds; holds takes an array of different values."""
        whole = np.zeros(self._size, dtype=np.uint8)
        for shard, data in self._facets[name]:
            column = unpack_column(data)
            chosen = np.asarray(holds(column.values), dtype=bool)
            if not chosen.any():
                continue
            if shard in self._blocks:
                block = self._blocks[shard]
                whole[block.place] |= column.select(chosen, rows=block.ids.rows)
            else:
                ids = self._labelled[shard]
                self._mark(whole, ids.all()[_flags(column.select(chosen, rows=ids.rows), rows=ids.rows)])
        return whole

    def _mark(self, whole: Bits, wanted: Ids) -> None:
        """Set the bits of structures, whose ids ascend."""
        for block in self._blocks.values():
            places = block.ids.places(wanted)
            if len(places):
                whole[block.place] |= bitmap(places, rows=block.ids.rows)

    def ids_where(self, holds: Callable[[Ids], Any]) -> Bits:
        """The structures whose ids hold."""
        return self._collect(lambda block: np.packbits(np.asarray(holds(block.ids.all()), bool), bitorder="little"))

    def ids(self, bits: Bits) -> Ids:
        """The ids of the structures in a bitmap, ascending."""
        parts = [block.ids.all()[_flags(bits[block.place], rows=block.ids.rows)] for block in self._blocks.values()]
        return np.concatenate([np.zeros(0, np.int64), *parts])


def _flags(bits: Bits, *, rows: int) -> Bool[np.ndarray, " rows"]:
    return np.unpackbits(bits, count=rows, bitorder="little").astype(bool)


def read_bitmaps(session: Session, names: Iterable[str]) -> Bitmaps | None:
    """The bitmaps of facets, in one statement, so that they are of one moment; None where some shard has no facets."""
    if session.scalar(shards_without_facets().with_only_columns(1).limit(1)) is not None:
        return None
    facets: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    for name, shard, data in _rows(session, sorted({STRUCTURE_IDS, LABEL_IDS, *names})):
        facets[name].append((shard, data))
    return Bitmaps(session, facets)


def _rows(session: Session, names: list[str]) -> Iterator[Any]:
    query = select(Facet.name, Facet.shard_id, Facet.data).where(Facet.name.in_(names))
    connection = session.connection()
    if connection.dialect.driver != "psycopg":
        yield from connection.execute(query)
        return
    # psycopg's usual cursor gets bytes as hexadecimal digits, twice as many
    driver = connection.connection.driver_connection
    with driver.cursor(binary=True) as cursor:  # type: ignore[union-attr]  # a psycopg.Connection
        yield from cursor.execute("SELECT name, shard_id, data FROM facet WHERE name = ANY(%s)", [names])
