"""Training records: structures with their labels and neighbour lists, kept in memory while they fit."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.labels import Label
from mlipdb.structures import Structure
from mlipdb.trainers.batching.neighbours import Neighbours, neighbours
from mlipdb.trainers.graph import NO_NEEDS, GraphNeeds

CHUNK = 256


@dataclass(frozen=True, eq=False, kw_only=True)
class Record:
    """One structure, what is known of it, and its pairs within the cutoff."""

    structure: Structure
    label: Label | None
    teacher: Label | None
    neighbours: Neighbours

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays, roughly."""
        arrays: list[np.ndarray | None] = [self.structure.positions]
        for label in (self.label, self.teacher):
            if label is not None:
                arrays += [label.forces, label.atomic_energies, label.hessian_rows]
        return sum(array.nbytes for array in arrays if array is not None) + self.neighbours.nbytes + 1024


class RecordSource:
    """Records of a database by structure id.

    method_id chooses the label (None: the one of the structure's source), teacher_id the teacher's label. Records stay
    in memory until they fill budget bytes; those beyond are read, and their neighbour lists computed, each time anew.
    Safe to use from several threads.
    """

    def __init__(
        self,
        db: Database,
        *,
        cutoff: float,
        needs: GraphNeeds = NO_NEEDS,
        method_id: int | None = None,
        teacher_id: int | None = None,
        budget: int = 2 * 1024**3,
        threads: int = 1,
    ) -> None:
        self._db = db
        self._cutoff = cutoff
        self._needs = needs
        self._method_id = method_id
        self._teacher_id = teacher_id
        self._left = budget
        self._threads = threads
        self._kept: dict[int, Record] = {}
        self._reading = threading.Lock()

    def get(self, ids: Int64[np.ndarray, " structures"]) -> list[Record]:
        """The records of these structures, in order."""
        missing = [int(number) for number in ids if int(number) not in self._kept]
        fresh = {number: self._record(*parts) for number, parts in zip(missing, self._read(missing), strict=True)}
        self._keep(fresh)
        return [fresh[number] if number in fresh else self._kept[number] for number in map(int, ids)]

    def labels(self, ids: Int64[np.ndarray, " structures"]) -> Iterator[tuple[Structure, Label | None]]:
        """Structures and labels alone, without neighbour lists, in order."""
        return iter(self._db.read([int(number) for number in ids], method_id=self._method_id))

    def without_neighbours(
        self, ids: Int64[np.ndarray, " structures"]
    ) -> Iterator[tuple[Structure, Label | None, Label | None]]:
        """Structures, labels and the teacher's labels alone, in order, a chunk at a time."""
        for start in range(0, len(ids), CHUNK):
            yield from self._read([int(number) for number in ids[start : start + CHUNK]])

    def stream(self, ids: Int64[np.ndarray, " structures"]) -> Iterator[Record]:
        """The records of many structures, in order, computed by threads and a chunk at a time."""
        chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
        with ThreadPoolExecutor(self._threads) as pool:
            waiting = [pool.submit(self.get, chunk) for chunk in islice(chunks, self._threads + 1)]
            for place in range(len(chunks)):
                yield from waiting.pop(0).result()
                if place + self._threads + 1 < len(chunks):
                    waiting.append(pool.submit(self.get, chunks[place + self._threads + 1]))

    def _read(self, ids: Sequence[int]) -> list[tuple[Structure, Label | None, Label | None]]:
        with self._reading:
            pairs = list(self._db.read(ids, method_id=self._method_id))
            if self._teacher_id is None:
                return [(structure, label, None) for structure, label in pairs]
            taught = [label for _, label in self._db.read(ids, method_id=self._teacher_id)]
        return [(structure, label, teacher) for (structure, label), teacher in zip(pairs, taught, strict=True)]

    def _record(self, structure: Structure, label: Label | None, teacher: Label | None) -> Record:
        pairs = neighbours(structure, self._cutoff, needs=self._needs)
        return Record(structure=structure, label=label, teacher=teacher, neighbours=pairs)

    def _keep(self, fresh: dict[int, Record]) -> None:
        with self._reading:
            for number, record in fresh.items():
                if number not in self._kept and record.nbytes <= self._left:
                    self._left -= record.nbytes
                    self._kept[number] = record
