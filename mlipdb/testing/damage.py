"""Damage to the files of a database, and what a reader in a process of its own makes of it."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlipdb
from mlipdb.errors import CorruptError

FOUND, UNNOTICED, OTHER = 10, 20, 30  # exit codes of a reader
NAMES = {FOUND: "found", UNNOTICED: "not found", OTHER: "another error"}


@dataclass(frozen=True)
class Damage:
    """A bit to flip, or a length to cut a file to where bit is None."""

    file: Path
    bit: int | None
    length: int

    def inflict(self) -> None:
        """Do it."""
        if self.bit is None:
            os.truncate(self.file, self.length)
            return
        with self.file.open("r+b", buffering=0) as file:
            byte = os.pread(file.fileno(), 1, self.bit // 8)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << self.bit % 8]), self.bit // 8)


def random_damages(folder: Path, *, flips: int, cuts: int, seed: int) -> Iterator[Damage]:
    """Single-bit flips, then truncations, anywhere in the shards of a database directory."""
    rng = random.Random(seed)
    files = sorted((folder / "shards").glob("*.lmdb"))
    for number in range(flips + cuts):
        file = rng.choice(files)
        size = file.stat().st_size
        yield Damage(file, rng.randrange(8 * size) if number < flips else None, rng.randrange(size))


def outcomes(folder: Path, *, flips: int, cuts: int, seed: int, scratch: Path) -> Counter[str]:
    """How often each damage was found, missed, or killed the reader; every file is whole again afterwards.

    The readers are forks of this process, which must not have opened a shard of the database.
    """
    counts: Counter[str] = Counter()
    db = mlipdb.open(folder)
    ids = db.query("all").ids.tolist()
    db.close()  # a connection must not cross a fork
    for damage in random_damages(folder, flips=flips, cuts=cuts, seed=seed):
        shutil.copy2(damage.file, scratch / "whole")
        damage.inflict()
        counts[_outcome(db, ids)] += 1
        shutil.copy2(scratch / "whole", damage.file)
    return counts


def _outcome(db: mlipdb.Database, ids: list[int]) -> str:
    child = os.fork()
    if child == 0:
        code = OTHER
        try:
            _read_all(db, ids)
            code = UNNOTICED
        except CorruptError:
            code = FOUND
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return NAMES.get(os.WEXITSTATUS(status), "another error")


def _read_all(db: mlipdb.Database, ids: list[int]) -> None:
    """Every structure and label there is, of every shard."""
    db.read_arrays(ids)
    for method in db.methods():
        for _ in db.read(ids, method_id=method):  # all parts of its labels
            pass
