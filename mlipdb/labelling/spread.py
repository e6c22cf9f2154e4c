"""How far methods are apart on each structure: the numbers of a disagreement, from labels.

The spread of K values is √(1/K Σ|x - mean|²): for two methods half of what they are apart.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from sqlalchemy import BindParameter, bindparam, select
from sqlalchemy.orm import Session

from mlipdb.catalog import LabelRow, MethodRow, StructureElement
from mlipdb.catalog.rows import method_of
from mlipdb.database import Database
from mlipdb.labels import ENERGY_KINDS
from mlipdb.structures import SYMBOLS

CHUNK = 10_000  # structures asked of the catalog at once
READ = 4096  # structures whose forces are in memory at once
SMALLEST = 1e-10  # eigenvalue of the scaled normal equations below which the data decide nothing
NO_HASH = bytes(16)

Ids = Int64[np.ndarray, " structures"]
Values = Float64[np.ndarray, " structures"]

# written into the statement, so that no limit of parameters counts; they are numbers
_some: BindParameter[int] = bindparam("some", expanding=True, literal_execute=True)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Structures that every method labelled, ids ascending. energies in eV, NaN where a label has none.

    hashes tell other labels apart.
    """

    ids: Ids
    energies: Float64[np.ndarray, "methods structures"]
    hashes: UInt8[np.ndarray, "structures 16"]


def read_labelled(session: Session, ids: Ids, methods: Sequence[int]) -> Labelled:
    """Those of some structures, whose ids ascend, that every method labelled."""
    parts = [_labelled(session, ids[start : start + CHUNK], methods) for start in range(0, len(ids), CHUNK)]
    parts = parts or [_labelled(session, ids, methods)]
    return Labelled(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.energies for part in parts], axis=1),
        np.concatenate([part.hashes for part in parts]),
    )


def _labelled(session: Session, ids: Ids, methods: Sequence[int]) -> Labelled:
    energies = np.full((len(methods), len(ids)), np.nan)
    hashes = np.zeros((len(ids), 2), np.uint64)
    done = np.zeros((len(methods), len(ids)), bool)
    row = LabelRow
    for number, (method, kind) in enumerate(zip(methods, _energy_kinds(session, methods), strict=True)):
        wanted = select(row.structure_id, getattr(row, kind), row.content_hash)
        hashes *= np.uint64(0x9E3779B97F4A7C15)  # odd, so that the order of the methods counts and nothing is lost
        found = wanted.where(row.method_id == method, row.part == 0, row.status == "done", row.structure_id.in_(_some))
        rows = session.connection().execute(found, {"some": ids.tolist()}).all() if len(ids) else []
        places = np.searchsorted(ids, np.array([identity for identity, _, _ in rows], np.int64))
        done[number, places] = True
        energies[number, places] = [np.nan if energy is None else energy for _, energy, _ in rows]
        content = b"".join(bytes(content or NO_HASH) for _, _, content in rows)
        hashes[places] ^= np.frombuffer(content, "<u8").reshape(-1, 2)
    every = done.all(axis=0)
    return Labelled(ids[every], energies[:, every], hashes[every].astype("<u8").view(np.uint8))


def _energy_kinds(session: Session, methods: Sequence[int]) -> list[str]:
    """Which energy of each method is compared: a teacher's own, and of DFT that of the teachers if it is one."""
    found = [method_of(session.get_one(MethodRow, method)).energy_kind for method in methods]
    teachers = {kind for kind in found if kind is not None}
    of_dft = teachers.pop() if len(teachers) == 1 else ENERGY_KINDS[0]
    return [kind or of_dft for kind in found]


def force_spread(db: Database, ids: Ids, methods: Sequence[int]) -> Values:
    """The spread of the methods' forces on the atom where it is largest, in eV/Å; NaN where a method gave no forces."""
    parts = [_force_spread(db, ids[start : start + READ], methods) for start in range(0, len(ids), READ)]
    return np.concatenate([np.zeros(0), *parts])


def _force_spread(db: Database, ids: Ids, methods: Sequence[int]) -> Values:
    batches = [db.read_arrays(ids, method_id=method, fields=("forces",)) for method in methods]
    forces = np.stack([batch.values["forces"] for batch in batches])
    squares = np.square(forces - forces.mean(axis=0)).sum(axis=2).mean(axis=0)
    known = np.all([batch.present["forces"] for batch in batches], axis=0)
    spread = np.sqrt(np.maximum.reduceat(squares, batches[0].offsets[:-1]))
    return np.where(known, spread, np.nan)


@dataclass(frozen=True, eq=False)
class EnergySpread:
    """Spread of the energies in eV/atom, NaN where it is not known, and what was taken off before, as eV by element.

    constants are one table a method, relative to the mean of the methods; none where the structures are too few.
    """

    values: Values
    constants: tuple[Mapping[str, float], ...]


def energy_spread(session: Session, labelled: Labelled) -> EnergySpread:
    """The spread of the methods' energies per atom after the best constant per element is taken off each.

    Unknown where a method gave no energy, and everywhere where the structures are not more than the constants.
    """
    values = np.full(len(labelled.ids), np.nan)
    known = np.isfinite(labelled.energies).all(axis=0)
    if not known.any():
        return EnergySpread(values, ())
    fractions = _read_fractions(session, labelled.ids[known])
    per_atom = labelled.energies[:, known] / fractions.atoms
    apart = per_atom - per_atom.mean(axis=0)
    inverse, rank = fractions.solver()
    if fractions.structures <= rank:
        return EnergySpread(values, ())
    constants = np.zeros((len(apart), len(fractions.numbers)))
    for _ in range(2):  # the second fits what rounding left of the first
        more = fractions.project(apart) @ inverse
        constants += more
        apart = apart - fractions.energies(more)
    values[known] = np.sqrt(np.square(apart).mean(axis=0))
    symbols = [SYMBOLS[number] for number in fractions.numbers.tolist()]
    return EnergySpread(values, tuple(dict(zip(symbols, row, strict=True)) for row in constants.tolist()))


@dataclass(frozen=True, eq=False)
class _Fractions:
    """The fraction of each element in each structure: entry k says it of element column[k] in structure row[k].

    numbers are the atomic numbers of the columns; atoms the sizes of the structures.
    """

    numbers: Int64[np.ndarray, " elements"]
    row: Int64[np.ndarray, " entries"]
    column: Int64[np.ndarray, " entries"]
    value: Float64[np.ndarray, " entries"]
    atoms: Values

    @property
    def structures(self) -> int:
        return len(self.atoms)

    def solver(self) -> tuple[Float64[np.ndarray, "elements elements"], int]:
        """The pseudoinverse of the normal equations and their rank, columns scaled to the same length first."""
        gram = np.zeros((len(self.numbers), len(self.numbers)))
        for some in self._slices():
            first = self.row[some.start]
            dense = np.zeros((self.row[some.stop - 1] - first + 1, len(self.numbers)))
            dense[self.row[some] - first, self.column[some]] = self.value[some]
            gram += dense.T @ dense
        scale = 1 / np.sqrt(np.diag(gram))
        values, vectors = np.linalg.eigh(gram * np.outer(scale, scale))
        decided = values > SMALLEST * values.max()
        vectors = scale[:, None] * vectors[:, decided]
        return (vectors / values[decided]) @ vectors.T, int(decided.sum())

    def project(self, energies: Float64[np.ndarray, "methods structures"]) -> Float64[np.ndarray, "methods elements"]:
        """The right-hand sides of the normal equations."""
        return np.array([np.bincount(self.column, self.value * each[self.row], len(self.numbers)) for each in energies])

    def energies(self, constants: Float64[np.ndarray, "methods elements"]) -> Float64[np.ndarray, "methods structures"]:
        """Energies per atom of these constants."""
        return np.array([np.bincount(self.row, self.value * each[self.column], self.structures) for each in constants])

    def _slices(self) -> Iterator[slice]:
        """Entries of whole structures, some thousand at a time."""
        ends = np.searchsorted(self.row, np.arange(0, self.structures + CHUNK, CHUNK)).tolist()
        return (slice(start, stop) for start, stop in pairwise(ends) if stop > start)


def _read_fractions(session: Session, ids: Ids) -> _Fractions:
    element = StructureElement
    query = select(element.structure_id, element.atomic_number, element.count).where(element.structure_id.in_(_some))
    parts = [np.zeros((0, 3), np.int64)]
    for start in range(0, len(ids), CHUNK):
        rows = session.connection().execute(query, {"some": ids[start : start + CHUNK].tolist()}).all()
        parts.append(np.array([tuple(row) for row in rows], np.int64).reshape(-1, 3))
    table = np.concatenate(parts)
    table = table[np.argsort(table[:, 0], kind="stable")]
    row, (numbers, column) = np.searchsorted(ids, table[:, 0]), np.unique(table[:, 1], return_inverse=True)
    atoms = np.bincount(row, table[:, 2], len(ids))
    return _Fractions(numbers, row, column, table[:, 2] / atoms[row], atoms)
