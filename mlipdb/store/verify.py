"""Compare the files in shards/ with what the catalog says of them, and remove what no row names."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlipdb.errors import CorruptError
from mlipdb.records import Report
from mlipdb.store.checked import file_sha256
from mlipdb.store.decode import Decoder
from mlipdb.store.record import Record
from mlipdb.store.shard import ShardFile, open_shard


@dataclass(frozen=True)
class ExpectedShard:
    """What the catalog says of a shard; ids are the structure ids that rows place in it."""

    id: int
    path: str
    records: int
    bytes: int
    sha256: str
    ids: frozenset[int]


Records = Iterator[tuple[int, Record]]
Examine = Callable[[ExpectedShard, Records], list[str]]


def verify_shards(
    directory: Path, expected: Sequence[ExpectedShard], *, uuid: str, examine: Examine | None = None
) -> Report:
    """Check that each shard is there with its size, hash and keys; examine gets every record decoded, if it is given.

    Hashes are computed anew, whatever was compared before.
    """
    problems: list[str] = []
    for shard in expected:
        try:
            problems += _check(directory, shard, uuid=uuid, examine=examine)
        except CorruptError as error:
            problems.append(str(error))
    return Report(
        shards=len(expected),
        records=sum(shard.records for shard in expected),
        problems=tuple(problems),
        orphans=tuple(orphans(directory, expected)),
    )


def _check(directory: Path, shard: ExpectedShard, *, uuid: str, examine: Examine | None) -> list[str]:
    path = directory / shard.path
    if not path.is_file():
        return [f"{shard.path} is missing; restore it from a backup"]
    if path.stat().st_size != shard.bytes:
        size = path.stat().st_size
        return [f"{shard.path} has {size} bytes where the catalog says {shard.bytes}; restore it from a backup"]
    digest = file_sha256(path)
    if digest != shard.sha256:
        # A damaged B-tree can send LMDB outside the map, so a file that fails its hash is not opened.
        return [f"{shard.path}: SHA-256 is {digest[:16]}…, the catalog says {shard.sha256[:16]}…; restore it"]
    file = open_shard(path, uuid=uuid)
    keys = {int.from_bytes(key) for key, _ in file.items()}
    problems = []
    if missing := shard.ids - keys:
        problems.append(f"{shard.path}: {len(missing)} records that rows name are missing, first {min(missing)}")
    if len(keys) != shard.records:
        problems.append(f"{shard.path}: {len(keys)} records where the catalog says {shard.records}")
    if examine is not None:
        problems += examine(shard, _decoded(file, shard.path, problems))
    return problems


def _decoded(file: ShardFile, path: str, problems: list[str]) -> Records:
    """Every record that can be decoded; the others become problems."""
    decoder = Decoder()
    for key, data in file.items():
        try:
            record = decoder.decode(int.from_bytes(key), data)
        except CorruptError as error:
            problems.append(f"{path}: {error}")
        else:
            yield int.from_bytes(key), record


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
