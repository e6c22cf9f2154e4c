"""Compare the files in shards/ with what the catalog says of them, and remove what no row names."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlipdb.errors import CorruptError
from mlipdb.records import Report
from mlipdb.store.decode import Decoder
from mlipdb.store.shard import open_shard


@dataclass(frozen=True)
class ExpectedShard:
    """What the catalog says of a shard; ids are the structure ids that rows place in it."""

    path: str
    records: int
    bytes: int
    sha256: str
    ids: frozenset[int]


def verify_shards(directory: Path, expected: Sequence[ExpectedShard], *, uuid: str, deep: bool) -> Report:
    """Check that each shard is there with its size, hash and keys; with deep, decode every record."""
    problems: list[str] = []
    for shard in expected:
        try:
            problems += _check(directory, shard, uuid=uuid, deep=deep)
        except CorruptError as error:
            problems.append(str(error))
    return Report(
        shards=len(expected),
        records=sum(shard.records for shard in expected),
        problems=tuple(problems),
        orphans=tuple(orphans(directory, expected)),
    )


def _check(directory: Path, shard: ExpectedShard, *, uuid: str, deep: bool) -> list[str]:
    path = directory / shard.path
    if path.is_file() and path.stat().st_size == shard.bytes:
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
        if digest != shard.sha256:
            # A damaged B-tree can send LMDB outside the map, so a file that fails its hash is not opened.
            return [f"{shard.path}: SHA-256 is {digest[:16]}…, the catalog says {shard.sha256[:16]}…; restore it"]
    file = open_shard(path, size=shard.bytes, uuid=uuid)
    decoder, keys, problems = Decoder(), set(), []
    for key, data in file.items():
        identity = int.from_bytes(key)
        keys.add(identity)
        if deep:
            try:
                decoder.decode(identity, data)
            except CorruptError as error:
                problems.append(f"{shard.path}: {error}")
    if missing := shard.ids - keys:
        problems.append(f"{shard.path}: {len(missing)} records that rows name are missing, first {min(missing)}")
    if len(keys) != shard.records:
        problems.append(f"{shard.path}: {len(keys)} records where the catalog says {shard.records}")
    return problems


def orphans(directory: Path, expected: Sequence[ExpectedShard]) -> list[str]:
    """Files and scratch folders in shards/ that no row names: what a crash left behind."""
    named = {shard.path for shard in expected}
    found = (f"shards/{item.name}" for item in (directory / "shards").glob("*"))
    return sorted(name for name in found if name not in named)


def remove_orphans(directory: Path, expected: Sequence[ExpectedShard]) -> list[str]:
    """Remove them; the caller holds the writer lock, so none is being written."""
    removed = orphans(directory, expected)
    for name in removed:
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return removed
