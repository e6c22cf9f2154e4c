"""One LMDB file of records: written privately, compacted, synced, hashed, renamed; then immutable."""

import hashlib
import json
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from mlipdb.errors import CorruptError
from mlipdb.store.disk import storage_errors
from mlipdb.store.facts import FACTS_KEY, ShardFacts, facts_in, pack_facts
from mlipdb.store.layout import VERSION
from mlipdb.store.paging import join, lay_out

META_KEY = b"mlipdb"  # six bytes, so it cannot be a structure id
LMDB_MAGIC = bytes.fromhex("dec0efbe01000000")  # of data format 1, which LMDB 0.9 reads and writes
PAGE = 4096


@dataclass(frozen=True)
class SealedShard:
    """A shard as it lies on disk; path is relative to the database directory."""

    path: str
    kind: str
    records: int
    bytes: int
    sha256: str
    first_structure_id: int
    last_structure_id: int


def structure_key(structure_id: int) -> bytes:
    """The key of a record: the structure id in 8 bytes, big-endian, so that keys sort as ids do."""
    return structure_id.to_bytes(8)


def write_shard(
    directory: Path, records: Sequence[tuple[bytes, bytes]], *, kind: str, uuid: str, facts: ShardFacts
) -> SealedShard:
    """Seal (key, record) pairs, ascending by key, as one file in directory/shards.

    When this returns, the bytes and the name are on disk. The name holds the hash of the content, of which the facts
    are a part: two methods may give the same labels to the last bit, and each has its own shard.
    """
    with storage_errors(directory):
        return _seal(directory, records, kind=kind, uuid=uuid, facts=facts)


def _seal(
    directory: Path, records: Sequence[tuple[bytes, bytes]], *, kind: str, uuid: str, facts: ShardFacts
) -> SealedShard:
    folder = directory / "shards"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as scratch:
        draft, sealed = Path(scratch) / "draft", Path(scratch) / "sealed"
        meta = {"uuid": uuid, "kind": kind, "format": VERSION, "records": len(records)}
        _fill(draft, records, meta=meta, facts=pack_facts(facts), copy_to=sealed)
        sha256, size = _sync_and_hash(sealed)
        first, last = int.from_bytes(records[0][0]), int.from_bytes(records[-1][0])
        name = f"shards/{kind}-{first:012d}-{sha256[:16]}.lmdb"
        sealed.rename(directory / name)
    sync_directory(folder)
    return SealedShard(name, kind, len(records), size, sha256, first, last)


def _fill(
    draft: Path, records: Sequence[tuple[bytes, bytes]], *, meta: dict[str, object], facts: bytes, copy_to: Path
) -> None:
    """Write the records in one transaction and copy them compacted. The draft needs no sync: it is thrown away."""
    # A value beyond half a page takes whole pages; a page more per record is a safe upper bound.
    need = sum(len(data) + 2 * PAGE for _, data in records) + len(facts) + 256 * PAGE
    with lmdb.open(str(draft), subdir=False, map_size=need, sync=False, lock=False) as environment:
        with environment.begin(write=True) as transaction:
            for key, data in lay_out(records):
                transaction.put(key, data, append=True)
            transaction.put(FACTS_KEY, facts)
            transaction.put(META_KEY, json.dumps(meta, sort_keys=True).encode())
        environment.copy(str(copy_to), compact=True)


def _sync_and_hash(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        head = file.read(24)
        if head[16:24] != LMDB_MAGIC:
            raise CorruptError(f"{path}: this lmdb package writes another data format than LMDB 0.9; install lmdb<4")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest, path.stat().st_size


def sync_directory(folder: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ShardFile:
    """A sealed shard open for reading: lock-free, never written. Use open_shard, which opens a file once per process.

    The file's hash must have been compared before: a mapped file that is short or has a damaged page may kill the
    process. Raises CorruptError when the file belongs to another database.
    """

    def __init__(self, path: Path, *, uuid: str) -> None:
        try:
            self._environment = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, readahead=False, max_readers=2048, create=False
            )
        except lmdb.Error as error:
            raise CorruptError(f"{path} is not a readable LMDB file ({error}); restore it from a backup") from error
        self.path = path
        self._check_owner(uuid)

    def _check_owner(self, uuid: str) -> None:
        owner = self.meta().get("uuid")
        if owner != uuid:
            raise CorruptError(f"{self.path} belongs to database {owner}, not {uuid}; put back the right file")

    def meta(self) -> dict[str, Any]:
        """What the file says of itself: uuid of its database, kind, format."""
        with self._environment.begin() as transaction:
            raw = transaction.get(META_KEY)
        return dict(json.loads(raw)) if raw else {}

    def facts(self) -> ShardFacts | None:
        """What the catalog's rows need beside the arrays; None in a shard of format 1."""
        with self._environment.begin() as transaction:
            return facts_in(transaction)

    def close(self) -> None:
        """Unmap the file; transactions on it end."""
        self._environment.close()

    def begin(self) -> lmdb.Transaction:
        """A read transaction; one per thread."""
        return self._environment.begin(buffers=False)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, record), ascending."""
        with self._environment.begin() as transaction:
            for key, head in transaction.cursor():
                if len(key) == 8:
                    yield bytes(key), join(key, head, transaction.get)


# Weak: a file is closed when the last database that reads it is gone. The key survives a path that is used again.
_open_shards: weakref.WeakValueDictionary[tuple[Path, int, int], ShardFile] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def open_shard(path: Path, *, uuid: str) -> ShardFile:
    """The shard at a path, opened once per process and file, and again after a fork: LMDB allows nothing else.

    Its hash must have been compared before, see mlipdb.store.checked.
    """
    with _opening:
        status = path.stat()
        key = (path.resolve(), status.st_ino, status.st_mtime_ns)
        shard = _open_shards.get(key)
        if shard is None:
            _open_shards[key] = shard = ShardFile(path, uuid=uuid)
        return shard


def _close_all() -> None:
    """In the child of a fork: LMDB must not use what the parent opened, nor open it again before it is closed."""
    global _opening
    _opening = threading.Lock()
    for shard in list(_open_shards.values()):
        shard.close()
    _open_shards.clear()


os.register_at_fork(after_in_child=_close_all)
