"""Labels of a batch as padded arrays with masks, in the student's energy convention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from mlipdb.labels import Label
from mlipdb.trainers.batching.pad import GraphShape
from mlipdb.trainers.batching.records import Record
from mlipdb.trainers.graph import Targets


@dataclass(frozen=True, kw_only=True)
class Convention:
    """Which energy is learnt and what is taken off it, in eV per atom of each atomic number.

    e0 is the student's. offsets are added to the teacher's atomic energies before e0 is taken off them; None compares
    the teacher's as the paper does: e0 is taken off where they include one, and nothing where they do not. With
    offsets and to_labels, what a labelled structure's energy still differs by is spread evenly over its atoms: the
    teacher then says how the labelled energy is shared among the atoms, and never contradicts it.
    """

    energy: str
    e0: Mapping[int, float]
    offsets: Mapping[int, float] | None = None
    to_labels: bool = False

    def interaction_energy(self, record: Record) -> float | None:
        """The labelled energy without E0 in eV, in float64: totals of 1e5 eV would lose the digits that matter."""
        total: float | None = None if record.label is None else getattr(record.label, self.energy)
        return None if total is None else float(total - _per_atom(self.e0, record.structure.atomic_numbers).sum())

    def interaction_atomic_energies(self, record: Record) -> Float64[np.ndarray, " atoms"] | None:
        """The teacher's atomic energies as the student should give them, in eV."""
        teacher = record.teacher
        if teacher is None or teacher.atomic_energies is None:
            return None
        numbers = record.structure.atomic_numbers
        energies: Float64[np.ndarray, " atoms"] = np.asarray(teacher.atomic_energies)
        if self.offsets is not None:
            energies = energies + _per_atom(self.offsets, numbers) - _per_atom(self.e0, numbers)
            label = self.interaction_energy(record) if self.to_labels else None
            energies = energies if label is None else energies + (label - energies.sum()) / len(numbers)
        elif teacher.atomic_energies_include_e0:
            energies = energies - _per_atom(self.e0, numbers)
        return energies


def _per_atom(values: Mapping[int, float], numbers: UInt8[np.ndarray, " atoms"]) -> Float64[np.ndarray, " atoms"]:
    return np.array([values[number] for number in numbers.tolist()], dtype=np.float64)


def choose_rows(record: Record, *, count: int, seed: int, epoch: int) -> Int64[np.ndarray, " rows"]:
    """Places of up to `count` of the Hessian rows that a record has, drawn anew each epoch from (seed, epoch, id)."""
    stored = len(_rows_of(record.teacher)[0])
    if not stored or not count:
        return np.zeros(0, dtype=np.int64)
    generator = np.random.default_rng([seed, epoch, record.structure.id or 0])
    return generator.permutation(stored)[:count].astype(np.int64)


def _rows_of(label: Label | None) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers and rows of a label; empty when it has none."""
    if label is None or label.hessian_row_numbers is None or label.hessian_rows is None:
        return np.zeros(0, np.int32), np.zeros((0, 0, 3))
    return label.hessian_row_numbers, label.hessian_rows


def pad_targets(
    records: Sequence[Record],
    *,
    conventions: Sequence[Convention],
    shape: GraphShape,
    rows: Sequence[Int64[np.ndarray, " _"]] = (),
    row_count: int = 0,
) -> Targets:
    """Targets of numpy arrays in the shape, atoms and graphs in the order of pad_graph; absent labels are masked.

    conventions[g] is that of record g, rows[g] the places of its Hessian rows to put into the row_count slots.
    """
    pairs = list(zip(records, conventions, strict=True))
    energies = [convention.interaction_energy(record) for record, convention in pairs]
    energy, has_energy = _per_graph(energies, shape=shape)
    stress, has_stress = _per_graph(
        [None if record.label is None else record.label.stress for record in records], shape=shape, inner=(3, 3)
    )
    forces, has_forces = _on_atoms(
        [None if record.label is None else record.label.forces for record in records], records, shape=shape, inner=(3,)
    )
    atomic, has_atomic = _on_atoms(
        [convention.interaction_atomic_energies(record) for record, convention in pairs], records, shape=shape
    )
    dofs, hessian, has_row = _hessian(records, rows, shape=shape, row_count=row_count)
    return Targets(
        energy=energy,
        has_energy=has_energy,
        forces=forces,
        has_forces=has_forces,
        stress=stress,
        has_stress=has_stress,
        atomic_energies=atomic,
        has_atomic_energies=has_atomic,
        hessian_dofs=dofs,
        hessian_rows=hessian,
        has_hessian_row=has_row,
    )


def _per_graph(
    values: Sequence[float | np.ndarray | None], *, shape: GraphShape, inner: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    padded, present = np.zeros((shape.graphs, *inner), np.float32), np.zeros(shape.graphs, np.bool_)
    for place, value in enumerate(values):
        if value is not None:
            padded[place], present[place] = value, True
    return padded, present


def _on_atoms(
    values: Sequence[np.ndarray | None], records: Sequence[Record], *, shape: GraphShape, inner: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    padded, present = np.zeros((shape.atoms, *inner), np.float32), np.zeros(shape.graphs, np.bool_)
    start = 0
    for place, (value, record) in enumerate(zip(values, records, strict=True)):
        end = start + len(record.structure)
        if value is not None:
            padded[start:end], present[place] = value, True
        start = end
    return padded, present


def _hessian(
    records: Sequence[Record], rows: Sequence[Int64[np.ndarray, " _"]], *, shape: GraphShape, row_count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Degrees of freedom counted over the batch (-1 for none), the rows side by side, and which are there."""
    dofs = np.full((row_count, shape.graphs), -1, np.int32)
    hessian = np.zeros((row_count, shape.atoms, 3), np.float32)
    start = 0
    for place, (record, chosen) in enumerate(zip(records, rows, strict=False)):
        end = start + len(record.structure)
        numbers, values = _rows_of(record.teacher)
        for slot, row in enumerate(chosen):
            dofs[slot, place] = 3 * start + numbers[row]
            hessian[slot, start:end] = values[row]
        start = end
    return dofs, hessian, dofs >= 0
