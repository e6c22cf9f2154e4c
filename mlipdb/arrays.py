"""The stored arrays of a database: which shard holds a structure, and what is in it."""

import threading
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from mlipdb.catalog import ShardRow
from mlipdb.catalog.lookup import label_parts
from mlipdb.errors import NotFoundError
from mlipdb.labels import Label
from mlipdb.records import ArrayBatch
from mlipdb.store.batch import PER_ATOM, STRUCTURE_QUANTITIES, empty_batch
from mlipdb.store.pool import ShardPool
from mlipdb.store.record import Record
from mlipdb.structures import Structure

READ_CHUNK = 1024  # records whose arrays hang together in memory
FEW = 24  # records that are read faster one by one


class StoredArrays:
    """Reads structures and labels by structure id; safe from many threads and on both sides of a fork."""

    def __init__(self, path: Path, *, engine: Engine, uuid: str) -> None:
        self._engine = engine
        self._pool = ShardPool(path, uuid=uuid, locate=self._locate)
        self._places: tuple[list[int], list[int], list[int]] = ([], [], [])
        self._places_guard = threading.Lock()

    def read(
        self, ids: Sequence[int] | np.ndarray, *, method_id: int | None = None
    ) -> Iterator[tuple[Structure, Label | None]]:
        """Structures in the order of ids with their labels by a method, or those of their source."""
        wanted = np.array(ids, np.int64)
        for start in range(0, len(wanted), READ_CHUNK):
            chunk = wanted[start : start + READ_CHUNK]
            records = self._records(chunk)
            if method_id is None:
                for record in records:
                    yield record.structure, record.label  # type: ignore[misc]  # a structures shard holds a structure
                continue
            with Session(self._engine) as session:
                parts = label_parts(session, chunk.tolist(), method=method_id)
            for identity, record in zip(chunk.tolist(), records, strict=True):
                label = self.label(identity, parts[identity]) if identity in parts else None
                yield record.structure, label  # type: ignore[misc]  # as above

    def batch(self, ids: Sequence[int] | np.ndarray, fields: Collection[str], *, method_id: int | None) -> ArrayBatch:
        """Structures and quantities of their labels by a method, or of their source's, as flat arrays."""
        wanted = np.asarray(ids, np.int64)
        if not len(wanted):
            return empty_batch([], np.zeros(0, np.int64), fields)
        shards = self._shards_of(wanted)
        if method_id is None:
            return self._pool.batch(shards, wanted, fields)
        own = [name for name in fields if name in STRUCTURE_QUANTITIES]
        batch = self._pool.batch(shards, wanted, own)
        whole = empty_batch(wanted.tolist(), np.diff(batch.offsets), fields)
        batch = replace(batch, values={**whole.values, **batch.values}, present={**whole.present, **batch.present})
        self._put_labels(batch, [name for name in fields if name not in own], method_id)
        return batch

    def _put_labels(self, batch: ArrayBatch, fields: Sequence[str], method_id: int) -> None:
        """Put part 0 of a method's labels into a batch; higher parts hold Hessian rows only."""
        with Session(self._engine) as session:
            parts = label_parts(session, np.unique(batch.ids).tolist(), method=method_id)
        places = np.flatnonzero([identity in parts for identity in batch.ids.tolist()])
        if not len(places):
            return
        ids = batch.ids[places]
        shards = np.array([parts[identity][0] for identity in ids.tolist()])
        labels = self._pool.batch(shards, ids, fields)
        for name in fields:
            has = labels.present[name]
            batch.present[name][places] = has
            if name in PER_ATOM:
                batch.values[name][_atoms(batch, places[has])] = labels.values[name][
                    _atoms(labels, np.flatnonzero(has))
                ]
            else:
                batch.values[name][places] = labels.values[name]

    def label(self, identity: int, shards: Sequence[int]) -> Label:
        """The parts of one method's label joined: quantities of the first, Hessian rows of all."""
        found = [self._pool.record(shard, identity).label for shard in shards]
        parts = [label for label in found if label is not None]
        with_rows = [label for label in parts if label.hessian_rows is not None]
        if len(with_rows) < 2 and parts[0] in (with_rows or parts):
            return parts[0]
        return replace(
            parts[0],
            hessian_rows=np.concatenate([label.hessian_rows for label in with_rows]),
            hessian_row_numbers=np.concatenate([label.hessian_row_numbers for label in with_rows]),
        )

    def _records(self, ids: Int64[np.ndarray, " structures"]) -> list[Record]:
        if len(ids) < FEW:
            return [self._pool.record(self._shard_of(identity), identity) for identity in ids.tolist()]
        return self._pool.records(self._shards_of(ids), ids)

    def _shard_of(self, identity: int) -> int:
        """The shard of a structure: ids of one shard are consecutive, so the places fit in memory."""
        firsts, lasts, shards = self._places
        place = bisect_right(firsts, identity) - 1
        if place < 0 or identity > lasts[place]:
            firsts, lasts, shards = self._load_places()
            place = bisect_right(firsts, identity) - 1
            if place < 0 or identity > lasts[place]:
                raise NotFoundError(f"there is no structure {identity}; `mlipdb query all --limit 5` lists some")
        return shards[place]

    def _shards_of(self, ids: Int64[np.ndarray, " structures"]) -> Int64[np.ndarray, " structures"]:
        """The shard of each structure."""
        firsts, lasts, shards = map(np.array, self._places)
        places = np.searchsorted(firsts, ids, side="right") - 1 if len(firsts) else np.zeros(len(ids), np.int64)
        if not len(firsts) or (places < 0).any() or (ids > lasts[places]).any():
            return np.array([self._shard_of(identity) for identity in ids.tolist()])
        return np.asarray(shards[places], np.int64)

    def _load_places(self) -> tuple[list[int], list[int], list[int]]:
        columns = (ShardRow.first_structure_id, ShardRow.last_structure_id, ShardRow.id)
        statement = select(*columns).where(ShardRow.kind == "structures").order_by(ShardRow.first_structure_id)
        with self._places_guard, Session(self._engine) as session:
            found = session.execute(statement).all()
            self._places = ([row[0] for row in found], [row[1] for row in found], [row[2] for row in found])
            return self._places

    def _locate(self, shard_id: int) -> tuple[str, int, str]:
        with Session(self._engine) as session:
            row = session.get_one(ShardRow, shard_id)
            return row.path, row.bytes, row.sha256


def _atoms(batch: ArrayBatch, places: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " atoms"]:
    """Where the atoms of some structures stand in a batch."""
    counts = batch.offsets[places + 1] - batch.offsets[places]
    return np.repeat(batch.offsets[places] - np.cumsum(counts) + counts, counts) + np.arange(int(counts.sum()))
