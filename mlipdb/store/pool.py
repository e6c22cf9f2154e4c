"""The sealed shards of a database, opened once per process and read from any thread."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb

from mlipdb.errors import CorruptError
from mlipdb.store.codec import Decoder, Record
from mlipdb.store.paging import CUT, join
from mlipdb.store.shard import ShardFile, open_shard, structure_key


@dataclass
class _ThreadState(threading.local):
    """What one thread holds: its decoder and its transactions, of the process that made them."""

    decoder: Decoder = field(default_factory=Decoder)
    transactions: dict[int, lmdb.Transaction] = field(default_factory=dict)
    pid: int = field(default_factory=os.getpid)


class ShardPool:
    """Reads records by (shard, structure id). locate(shard_id) gives a shard's relative path and size."""

    def __init__(self, directory: Path, *, uuid: str, locate: Callable[[int], tuple[str, int]]) -> None:
        self._directory = directory
        self._uuid = uuid
        self._locate = locate
        self._files: dict[int, ShardFile] = {}
        self._files_pid = os.getpid()
        self._local = _ThreadState()

    def record(self, shard_id: int, structure_id: int) -> Record:
        """The record of a structure in a shard; CorruptError when it is missing or damaged."""
        local = self._local
        transaction = local.transactions.get(shard_id)
        if transaction is None or local.pid != os.getpid():
            transaction = self._begin(shard_id)
        key = structure_key(structure_id)
        data: Any = transaction.get(key)  # bytes: the transaction was begun without buffers
        if data is None:
            raise CorruptError(f"structure {structure_id} is not in {self._file(shard_id).path}; run `mlipdb verify`")
        if data[:2] == CUT:
            data = join(key, data, lambda piece: bytes(transaction.get(piece, b"")))
        return local.decoder.decode(key, data)

    def _begin(self, shard_id: int) -> lmdb.Transaction:
        local = self._local
        if local.pid != os.getpid():  # after a fork nothing of the parent's may be used
            local.decoder, local.transactions, local.pid = Decoder(), {}, os.getpid()
        local.transactions[shard_id] = self._file(shard_id).begin()
        return local.transactions[shard_id]

    def _file(self, shard_id: int) -> ShardFile:
        if self._files_pid != os.getpid():
            self._files, self._files_pid = {}, os.getpid()
        if shard_id not in self._files:
            path, size = self._locate(shard_id)
            self._files[shard_id] = open_shard(self._directory / path, size=size, uuid=self._uuid)
        return self._files[shard_id]
