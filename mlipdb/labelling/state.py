"""What is labelled already, and what is still to do."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int64
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlipdb.catalog import LabelRow, StructureRow
from mlipdb.database import Database
from mlipdb.errors import NotFoundError
from mlipdb.labelling.rows import RowCount
from mlipdb.labels import ENERGY_KINDS

CHUNK = 1000  # ids in one SELECT; SQLite takes 32,766 variables
ALL_AXES = 0b111


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelState:
    """For each structure of ids (ascending): its atoms, and what one method has of it.

    part is the number of the next label part; rows counts the Hessian rows of all parts that are done. lacking says by
    place what a whole label has and the stored base has not: an energy, forces or, with three periodic directions, a
    stress.
    """

    ids: Int64[np.ndarray, " structures"]
    natoms: Int64[np.ndarray, " structures"]
    base: Bool[np.ndarray, " structures"]
    failed: Bool[np.ndarray, " structures"]
    rows: Int64[np.ndarray, " structures"]
    part: Int64[np.ndarray, " structures"]
    lacking: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def incomplete(self, hessian_rows: RowCount) -> Bool[np.ndarray, " structures"]:
        """Where the base or some of the wanted Hessian rows are missing."""
        want = 3 * self.natoms if hessian_rows == "all" else np.minimum(hessian_rows, 3 * self.natoms)
        return ~self.base | (self.rows < want)


def label_state(db: Database, method_id: int, *, ids: Int64[np.ndarray, " structures"]) -> LabelState:
    """What the catalog says of these structures; NotFoundError names one that is not there."""
    size = len(ids)
    state = LabelState(
        ids=ids,
        natoms=np.zeros(size, np.int64),
        base=np.zeros(size, bool),
        failed=np.zeros(size, bool),
        rows=np.zeros(size, np.int64),
        part=np.zeros(size, np.int64),
    )
    with db.session() as session:
        for start in range(0, size, CHUNK):
            chunk = ids[start : start + CHUNK].tolist()
            _read_sizes(session, state, chunk=chunk)
            _read_labels(session, state, chunk=chunk, method_id=method_id)
    if not state.natoms.all():
        missing = ids[state.natoms == 0]
        raise NotFoundError(f"{db.path}: no structure {missing[0]} ({len(missing)} of {size} ids are not there)")
    return state


def _read_sizes(session: Session, state: LabelState, *, chunk: list[int]) -> None:
    query = select(StructureRow.id, StructureRow.nsites).where(StructureRow.id.in_(chunk))
    for structure_id, nsites in session.execute(query):
        state.natoms[np.searchsorted(state.ids, structure_id)] = nsites


def _read_labels(session: Session, state: LabelState, *, chunk: list[int], method_id: int) -> None:
    energy = func.coalesce(*(getattr(LabelRow, name) for name in ENERGY_KINDS))
    query = (
        select(
            LabelRow.structure_id, LabelRow.part, LabelRow.status, LabelRow.hessian_rows,
            LabelRow.arrays, energy, StructureRow.pbc,
        )
        .join(StructureRow, StructureRow.id == LabelRow.structure_id)
        .where(LabelRow.method_id == method_id, LabelRow.structure_id.in_(chunk))
    )  # fmt: skip
    for structure_id, part, status, rows, arrays, value, pbc in session.execute(query):
        place = int(np.searchsorted(state.ids, structure_id))
        if status == "failed":
            state.failed[place] = True
            continue
        state.base[place] |= part == 0
        state.rows[place] += rows
        state.part[place] = max(state.part[place], part + 1)
        if part == 0 and (lacking := _lacking(value, arrays, pbc=pbc)):
            state.lacking[place] = lacking


def _lacking(energy: float | None, arrays: str, *, pbc: int) -> tuple[str, ...]:
    """What a label is not whole without."""
    wanted = ("forces", "stress") if pbc == ALL_AXES else ("forces",)
    absent = tuple(name for name in wanted if name not in arrays.split())
    return absent if energy is not None else ("energy", *absent)
