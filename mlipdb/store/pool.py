"""The sealed shards of a database, opened once per process and read from any thread."""

import os
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from jaxtyping import Int64

from mlipdb.errors import CorruptError
from mlipdb.records import ArrayBatch
from mlipdb.store.batch import BatchDecoder
from mlipdb.store.checked import CheckedFiles
from mlipdb.store.decode import Decoder
from mlipdb.store.paging import CUT, join
from mlipdb.store.record import Record
from mlipdb.store.shard import ShardFile, open_shard


@dataclass
class _ThreadState(threading.local):
    """What one thread holds: its decoder and its transactions, of the process that made them."""

    decoder: Decoder = field(default_factory=Decoder)
    batches: BatchDecoder = field(default_factory=BatchDecoder)
    transactions: dict[int, lmdb.Transaction] = field(default_factory=dict)
    pid: int = field(default_factory=os.getpid)


class ShardPool:
    """Reads records by (shard, structure id). locate(shard_id) gives a shard's relative path, size and SHA-256.

    A shard is compared with its hash before it is opened, once while the file stays as it is.
    """

    def __init__(self, directory: Path, *, uuid: str, locate: Callable[[int], tuple[str, int, str]]) -> None:
        self._directory = directory
        self._uuid = uuid
        self._locate = locate
        self._checked = CheckedFiles(directory)
        self._files: dict[int, ShardFile] = {}
        self._files_pid = os.getpid()
        self._local = _ThreadState()

    def record(self, shard_id: int, structure_id: int) -> Record:
        """The record of a structure in a shard; CorruptError when it is missing or damaged."""
        [data] = self.fetch(shard_id, [structure_id])
        return self._state().decoder.decode(structure_id, data)

    def fetch(self, shard_id: int, ids: Iterable[int]) -> list[bytes]:
        """The bytes of records in a shard, still unchecked."""
        transaction = self._state().transactions.get(shard_id) or self._begin(shard_id)
        get: Callable[[bytes], Any] = transaction.get  # bytes: the transaction was begun without buffers
        keys = [structure_id.to_bytes(8) for structure_id in ids]
        found = list(map(get, keys))
        if None in found:
            missing = int.from_bytes(keys[found.index(None)])
            raise CorruptError(f"structure {missing} is not in {self._file(shard_id).path}; run `mlipdb verify`")
        kinds = bytes(map(itemgetter(1), found))
        place = kinds.find(CUT[1:])
        while place >= 0:
            found[place] = join(keys[place], found[place], get)
            place = kinds.find(CUT[1:], place + 1)
        return found

    def batch(
        self, shards: Int64[np.ndarray, " structures"], ids: Int64[np.ndarray, " structures"], fields: Collection[str]
    ) -> ArrayBatch:
        """Many records, each of its shard, as flat arrays in the order of ids."""
        return self._state().batches.decode(ids.tolist(), self._fetch_all(shards, ids), fields)

    def records(self, shards: Int64[np.ndarray, " structures"], ids: Int64[np.ndarray, " structures"]) -> list[Record]:
        """Many records, each of its shard, in the order of ids; their arrays are parts of larger ones."""
        return self._state().batches.records(ids.tolist(), self._fetch_all(shards, ids))

    def _fetch_all(
        self, shards: Int64[np.ndarray, " structures"], ids: Int64[np.ndarray, " structures"]
    ) -> list[bytes]:
        """The bytes of many records in the order of ids, still unchecked."""
        order = np.lexsort((ids, shards))  # neighbours on disk one after another
        sorted_ids, sorted_shards = ids[order].tolist(), shards[order]
        starts = np.flatnonzero(np.diff(sorted_shards, prepend=-1)).tolist()
        fetched: list[bytes] = []
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            fetched += self.fetch(int(sorted_shards[start]), sorted_ids[start:end])
        return list(map(fetched.__getitem__, np.argsort(order).tolist()))

    def _state(self) -> "_ThreadState":
        local = self._local
        if local.pid != os.getpid():  # after a fork nothing of the parent's may be used
            local.decoder, local.batches = Decoder(), BatchDecoder()
            local.transactions, local.pid = {}, os.getpid()
        return local

    def _begin(self, shard_id: int) -> lmdb.Transaction:
        transaction = self._state().transactions[shard_id] = self._file(shard_id).begin()
        return transaction

    def _file(self, shard_id: int) -> ShardFile:
        if self._files_pid != os.getpid():
            self._files, self._files_pid = {}, os.getpid()
        if shard_id not in self._files:
            path, size, sha256 = self._locate(shard_id)
            self._checked.check(path, size=size, sha256=sha256)
            self._files[shard_id] = open_shard(self._directory / path, uuid=self._uuid)
        return self._files[shard_id]
