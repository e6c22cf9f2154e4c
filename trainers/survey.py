"""What a part of the data looks like: sizes, energies and forces, gathered in one pass before training."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from mlipdb.labels import Label
from mlipdb.structures import SYMBOLS, Structure
from mlipdb.subsets.statistics import ForceScale
from mlipdb.subsets.training_statistics import PartData
from mlipdb.trainers.batching.packing import Sizes
from mlipdb.trainers.batching.records import Record


@dataclass(frozen=True, eq=False, kw_only=True)
class Survey:
    """Facts of each structure of a part of the data, in order. A number is 0 where its mask is False.

    energies are labelled totals in eV; atomic_sums the sums of the teacher's atomic energies and teacher_totals its
    totals, eV; element_sums are those of its atomic energies over all atoms of an atomic number, and how many these
    are; force_rms is over the components of all labelled forces, eV/Å, 1 without any. includes_e0 says what the
    teacher's atomic energies contain, both where they are not of one kind.
    """

    sizes: Sizes
    compositions: tuple[dict[int, int], ...]
    energies: Float64[np.ndarray, " structures"]
    has_energy: Bool[np.ndarray, " structures"]
    teacher_totals: Float64[np.ndarray, " structures"]
    has_teacher_total: Bool[np.ndarray, " structures"]
    atomic_sums: Float64[np.ndarray, " structures"]
    has_atomic_energies: Bool[np.ndarray, " structures"]
    element_sums: Float64[np.ndarray, "2 numbers"]
    hessian_rows: int
    force_rms: float
    includes_e0: frozenset[bool]
    forces_missing: int
    stress_missing: int

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that occur."""
        return frozenset(number for composition in self.compositions for number in composition)

    def atomic_means(self, e0: Mapping[int, float]) -> dict[int, tuple[float, int]]:
        """Mean of the teacher's atomic energies minus e0 (eV), and how many atoms there are, of each element."""
        energies, atoms = self.element_sums
        return {int(z): (float(energies[z] / atoms[z]) - e0[int(z)], int(atoms[z])) for z in np.flatnonzero(atoms)}

    def part_data(self, *, pairs: bool) -> PartData:
        """What the statistics of a training are made of; pairs where the edges are all pairs within the cutoff."""
        edges = self.sizes.edges if pairs else None
        return PartData(self.compositions, self.energies, self.has_energy, edges, self.force_rms)


class Found(NamedTuple):
    """One structure, what is known of it, and how many edges and triplets it has; None where these are not counted."""

    structure: Structure
    label: Label | None
    teacher: Label | None
    edges: int
    triplets: int | None


def survey(records: Iterable[Record], *, energy: str) -> Survey:
    """Gather the facts of the records; energy names the labelled energy that counts."""
    found = (
        Found(each.structure, each.label, each.teacher, len(each.neighbours), each.neighbours.triplet_count)
        for each in records
    )
    return survey_found(found, energy=energy)


def survey_found(found: Iterable[Found], *, energy: str) -> Survey:
    """The same where edges and triplets were counted before."""
    seen = _Seen()
    for each in found:
        seen.add(each, energy=energy)
    energies, has_energy = _masked(seen.energies)
    totals, has_total = _masked(seen.teacher_totals)
    sums, has_atomic = _masked(seen.atomic_sums)
    return Survey(
        sizes=Sizes(
            atoms=np.array(seen.atoms, np.int64),
            edges=np.array(seen.edges, np.int64),
            triplets=None if None in seen.triplets else np.array(seen.triplets, np.int64),
        ),
        compositions=tuple(seen.compositions),
        energies=energies,
        has_energy=has_energy,
        teacher_totals=totals,
        has_teacher_total=has_total,
        atomic_sums=sums,
        has_atomic_energies=has_atomic,
        element_sums=seen.element_sums,
        hessian_rows=seen.hessian_rows,
        force_rms=seen.forces.rms,
        includes_e0=frozenset(seen.includes_e0),
        forces_missing=seen.forces_missing,
        stress_missing=seen.stress_missing,
    )


class _Seen:
    """Lists that grow by one record at a time."""

    def __init__(self) -> None:
        self.atoms: list[int] = []
        self.edges: list[int] = []
        self.triplets: list[int | None] = []
        self.compositions: list[dict[int, int]] = []
        self.energies: list[float | None] = []
        self.teacher_totals: list[float | None] = []
        self.atomic_sums: list[float | None] = []
        self.hessian_rows = self.forces_missing = self.stress_missing = 0
        self.forces = ForceScale()
        self.includes_e0: set[bool] = set()
        self.element_sums = np.zeros((2, len(SYMBOLS)))

    def add(self, found: Found, *, energy: str) -> None:
        label, teacher = found.label, found.teacher
        self.atoms.append(len(found.structure))
        self.edges.append(found.edges)
        self.triplets.append(found.triplets)
        self.compositions.append(found.structure.composition)
        self.energies.append(None if label is None else getattr(label, energy))
        energies = None if teacher is None else teacher.first_energy
        self.teacher_totals.append(None if energies is None else energies[1])
        atomic = None if teacher is None else teacher.atomic_energies
        self.atomic_sums.append(None if atomic is None else float(atomic.sum()))
        if teacher is not None and atomic is not None:
            self.includes_e0.add(bool(teacher.atomic_energies_include_e0))
            numbers, known = found.structure.atomic_numbers, self.element_sums.shape[1]
            self.element_sums[0] += np.bincount(numbers, weights=atomic, minlength=known)
            self.element_sums[1] += np.bincount(numbers, minlength=known)
        if teacher is not None and teacher.hessian_row_numbers is not None:
            self.hessian_rows += len(teacher.hessian_row_numbers)
        self._add_derivatives(found)

    def _add_derivatives(self, found: Found) -> None:
        forces = None if found.label is None else found.label.forces
        if forces is None:
            self.forces_missing += 1
        else:
            self.forces.add(forces)
        if found.label is None or found.label.stress is None:
            self.stress_missing += int(all(found.structure.pbc))


def _masked(
    values: list[float | None],
) -> tuple[Float64[np.ndarray, " structures"], Bool[np.ndarray, " structures"]]:
    present = np.array([value is not None for value in values], dtype=np.bool_)
    return np.array([0.0 if value is None else value for value in values], dtype=np.float64), present
