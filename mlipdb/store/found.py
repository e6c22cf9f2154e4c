"""The shards that lie in a database directory, read without a catalog."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlipdb.errors import CorruptError
from mlipdb.store.checked import file_sha256
from mlipdb.store.decode import Decoder
from mlipdb.store.facts import ShardFacts
from mlipdb.store.record import Record
from mlipdb.store.shard import SealedShard, open_shard


@dataclass(frozen=True, eq=False)
class FoundShard:
    """A whole shard of this database; facts are None in one of format 1."""

    file: Path
    sealed: SealedShard
    facts: ShardFacts | None
    uuid: str

    def records(self) -> Iterator[tuple[int, Record]]:
        """Every record, by ascending structure id."""
        decoder = Decoder()
        for key, data in open_shard(self.file, uuid=self.uuid).items():
            identity = int.from_bytes(key)
            yield identity, decoder.decode(identity, data)


def find_shards(directory: Path, *, uuid: str) -> tuple[list[FoundShard], list[str]]:
    """The whole shards of a database by their first structure, and why other files are none.

    A shard's name holds the beginning of its hash, so damage is found before the file is opened.
    """
    found, ignored = [], []
    for file in sorted((directory / "shards").glob("*.lmdb")):
        digest = file_sha256(file)
        if not file.stem.endswith(digest[:16]):
            ignored.append(f"shards/{file.name}: its SHA-256 is {digest[:16]}…, not the one in its name; it is damaged")
            continue
        try:
            found.append(_found(file, digest, uuid))
        except CorruptError as error:
            ignored.append(str(error))
    return sorted(found, key=lambda shard: shard.sealed.first_structure_id), ignored


def _found(file: Path, digest: str, uuid: str) -> FoundShard:
    shard = open_shard(file, uuid=uuid)
    keys = [int.from_bytes(key) for key, _ in shard.items()]
    kind = str(shard.meta()["kind"])
    sealed = SealedShard(
        f"shards/{file.name}", kind, len(keys), file.stat().st_size, digest, min(keys, default=0), max(keys, default=0)
    )
    return FoundShard(file, sealed, shard.facts(), uuid)


def without_overlap(shards: Sequence[FoundShard]) -> tuple[list[FoundShard], list[FoundShard]]:
    """Of structure shards, those to take and those to leave.

    A crash between the sealing of a shard and its rows leaves a file whose ids the next append uses again. Shards that
    were taken follow one another without a gap, so of those that begin at the same id the one is taken from which
    more structures can be reached.
    """
    reach: dict[int, tuple[int, FoundShard]] = {}
    for shard in sorted(shards, key=lambda item: item.sealed.first_structure_id, reverse=True):
        first, last = shard.sealed.first_structure_id, shard.sealed.last_structure_id
        beyond = reach[last + 1][0] if last + 1 in reach else 0
        if first not in reach or shard.sealed.records + beyond > reach[first][0]:
            reach[first] = (shard.sealed.records + beyond, shard)
    taken, last_taken = [], 0
    for first in sorted(reach):
        if first > last_taken:
            taken.append(reach[first][1])
            last_taken = reach[first][1].sealed.last_structure_id
    return taken, [shard for shard in shards if shard not in taken]
