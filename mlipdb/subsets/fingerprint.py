"""Structural fingerprints in the catalog: equal for what is the same crystal or molecule, whatever its coordinates."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Int64
from sqlalchemy import ColumnElement, insert, select
from sqlalchemy.orm import Session

from mlipdb.catalog import FingerprintTool, StructureFingerprint
from mlipdb.database import Database

SYMPREC = 0.1  # Å; frames of one relaxation keep their symmetry within it
BOND = 1.3  # times the sum of covalent radii
LOWEST_GROUP = 3  # P1 and P-1 say too little of a structure
TOOL = "mlipdb symmetry and bonds 1"  # the number changes when equal structures get other values
BATCH = 1024  # structures of one task and of one transaction
SMALL = 2048  # structures that are done here before processes would have started

Ids = Int64[np.ndarray, " _"]
Say = Callable[[int, int], None]


@dataclass(frozen=True)
class Fingerprinted:
    """What a run did: how many structures were asked for, how many were new, how many have none."""

    structures: int
    computed: int
    without: int
    tool: str
    version: str


def tool_version() -> str:
    """What the values depend on: packages with versions, and tolerances."""
    return (
        f"moyopy {version('moyopy')}, vesin {version('vesin')}, symprec {SYMPREC} Å, bonds {BOND}, from group "
        f"{LOWEST_GROUP}"
    )


def fingerprint(db: Database, ids: Ids, *, workers: int | None = None, progress: Say | None = None) -> Fingerprinted:
    """Work out and store the fingerprints that structures do not have yet by this tool and version.

    workers are processes (default: one per core, 0 for none). Each batch is stored at once, so a run that is
    stopped goes on where it was. progress is called with structures done and to do.
    """
    tool = _tool_id(db)
    missing = np.setdiff1d(ids, _known(db, ids, tool=tool))
    without = done = 0
    for batch, values in _computed(db, missing, workers=workers):
        without += values.count(None)
        done += len(batch)
        rows = [
            {"structure_id": int(number), "tool_id": tool, "value": value or ""}
            for number, value in zip(batch, values, strict=True)
        ]
        with db.write() as session:
            session.execute(insert(StructureFingerprint), rows)
        if progress is not None:
            progress(done, len(missing))
    return Fingerprinted(len(ids), done, without, TOOL, tool_version())


def stored_fingerprints(db: Database, ids: Ids) -> dict[int, str]:
    """The fingerprints of those structures that have one by this tool and version."""
    with db.session() as session:
        tool = _find_tool(session)
    if tool is None or not len(ids):
        return {}
    wanted = set(ids.tolist())
    columns = select(StructureFingerprint.structure_id, StructureFingerprint.value)
    with db.session() as session:
        rows = session.execute(columns.where(*_within(ids, tool)).execution_options(yield_per=10_000))
        return {number: value for number, value in rows if value and number in wanted}


def _tool_id(db: Database) -> int:
    with db.session() as session:
        known = _find_tool(session)
    if known is not None:
        return known
    with db.write() as session:
        row = FingerprintTool(tool=TOOL, version=tool_version())
        session.add(row)
        session.flush()
        return row.id


def _find_tool(session: Session) -> int | None:
    same = (FingerprintTool.tool == TOOL, FingerprintTool.version == tool_version())
    return session.scalar(select(FingerprintTool.id).where(*same))


def _known(db: Database, ids: Ids, *, tool: int) -> Ids:
    if not len(ids):
        return ids
    with db.session() as session:
        found = session.scalars(select(StructureFingerprint.structure_id).where(*_within(ids, tool)))
        return np.fromiter(found, dtype=np.int64)


def _within(ids: Ids, tool: int) -> tuple[ColumnElement[bool], ...]:
    column = StructureFingerprint.structure_id
    return (StructureFingerprint.tool_id == tool, column.between(int(ids.min()), int(ids.max())))


def _computed(db: Database, ids: Ids, *, workers: int | None) -> Iterator[tuple[Ids, list[str | None]]]:
    """Batches of ids with their fingerprints, in order."""
    from mlipdb.subsets.fingerprint_worker import fingerprints  # needs moyopy and ase

    batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
    count = (os.cpu_count() or 1) if workers is None else workers
    if count == 0 or len(ids) <= SMALL:
        for batch in batches:
            yield batch, fingerprints(_crystals(db, batch), symprec=SYMPREC, bond=BOND, lowest_group=LOWEST_GROUP)
        return
    with _Workers(count) as pool:
        rest = iter(batches)
        waiting = [(batch, pool.submit(_crystals(db, batch))) for batch in islice(rest, count + 1)]
        while waiting:
            batch, task = waiting.pop(0)
            yield batch, pool.result(task, batch, db)
            waiting += [(following, pool.submit(_crystals(db, following))) for following in islice(rest, 1)]


class _Workers:
    """Processes that work out fingerprints; a structure that kills its process has none, the others go on."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = self._start()

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def submit(self, crystals: Sequence[Any]) -> "Future[list[str | None]]":
        """Hand crystals to a process."""
        from mlipdb.subsets.fingerprint_worker import fingerprints

        options: dict[str, Any] = {"symprec": SYMPREC, "bond": BOND, "lowest_group": LOWEST_GROUP}
        try:
            return self._pool.submit(fingerprints, crystals, **options)
        except BrokenProcessPool:  # noticed only now that a process died
            self._pool = self._start()
            return self.submit(crystals)

    def result(self, task: "Future[list[str | None]]", batch: Ids, db: Database) -> list[str | None]:
        """Fingerprints of a batch; where its process died, of each structure by itself."""
        try:
            return task.result()
        except BrokenProcessPool:
            return [self._alone(crystal) for crystal in _crystals(db, batch)]

    def _alone(self, crystal: Any) -> str | None:
        for _ in range(2):  # the first failure may be another batch's process that died
            try:
                return self.submit([crystal]).result()[0]
            except BrokenProcessPool:
                self._pool = self._start()
        return None

    def _start(self) -> ProcessPoolExecutor:
        # Never fork: the parent may hold threads and locks.
        return ProcessPoolExecutor(self._count, mp_context=multiprocessing.get_context("spawn"))


def _crystals(db: Database, ids: Ids) -> list[Any]:
    return [(each.cell, each.positions, each.atomic_numbers, each.pbc) for each in db.structures(ids)]
