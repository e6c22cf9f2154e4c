# ruff: noqa: D102 - a test's name is its docstring
"""What every teacher must do. Authors of teachers subclass TeacherConformance in their own tests."""

import abc
import string
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import LabelError
from mlipdb.labelling.teacher import LabelRequest, Teacher
from mlipdb.labels import ENERGY_KINDS, Label, check_label
from mlipdb.structures import Structure, make_structure

NO_ROWS = np.zeros(0, np.int32)


def crystal() -> Structure:
    """Two unlike atoms in a skewed cell, off every symmetric place; Si and C."""
    cell = [[3.1, 0.2, 0.0], [0.0, 3.0, 0.4], [0.3, 0.0, 3.3]]
    return make_structure([14, 6], [[0.05, 0.1, -0.1], [1.6, 1.35, 1.5]], cell=cell, pbc=(True, True, True))


def molecule() -> Structure:
    """A bent molecule of three atoms, H-O-H stretched."""
    return make_structure([8, 1, 1], [[0.0, 0.0, 0.0], [0.98, 0.1, 0.0], [-0.2, 0.95, 0.15]])


def slab() -> Structure:
    """One layer, periodic in two directions."""
    return make_structure(
        [14, 14], [[0.0, 0.0, 0.0], [1.5, 1.4, 0.8]], cell=np.diag([3.0, 2.9, 0.0]), pbc=(True, True, False)
    )


class TeacherConformance(abc.ABC):
    """Same result alone and in a batch, permutation, forces, stress and Hessian rows by finite differences, and more.

    Set the tolerances to the teacher's arithmetic: step in Å is that of the central differences, batch in eV the
    rounding that a batch may change, and the others are absolute errors in eV/Å, eV/Å³ and eV/Å². structures may be
    replaced where the teacher does not cover H, C, O and Si; foreign is a structure that it does not cover, or None.
    """

    step: ClassVar[float] = 1e-4
    batch_tolerance: ClassVar[float] = 1e-10
    force_tolerance: ClassVar[float] = 1e-6
    stress_tolerance: ClassVar[float] = 1e-7
    hessian_tolerance: ClassVar[float] = 1e-5
    foreign: ClassVar[Structure | None] = make_structure([118], [[0.0, 0.0, 0.0]])

    @abc.abstractmethod
    def teacher(self) -> Teacher:
        """The teacher under test; make it once and keep it where that is slow."""

    def structures(self) -> list[Structure]:
        """A crystal first, then others of mixed sizes and periodicity."""
        return [crystal(), molecule(), slab()]

    def test_info_names_the_weights_and_elements(self) -> None:
        info = self.teacher().info
        assert len(info.weights_sha256) == 64
        assert set(info.weights_sha256) <= set(string.hexdigits.lower())
        assert info.name
        assert info.package_version
        assert all(number in info.atomic_numbers for item in self.structures() for number in item.composition)

    def test_labels_have_energy_forces_and_atomic_energies_that_fit_the_structure(self) -> None:
        for structure, label in zip(self.structures(), self.base(self.structures()), strict=True):
            check_label(label, natoms=len(structure), pbc=structure.pbc)
            assert _energy(label) is not None
            assert label.forces is not None
            assert label.hessian_rows is None

    def test_stress_exists_exactly_for_three_periodic_directions(self) -> None:
        for structure, label in zip(self.structures(), self.base(self.structures()), strict=True):
            assert (label.stress is not None) == all(structure.pbc)

    def test_a_structure_alone_and_in_a_batch_gets_the_same_label(self) -> None:
        structures = self.structures()
        rows = [np.array([1, 0], np.int32) for _ in structures]
        together = self.teacher().label(structures, LabelRequest(base=True, hessian_row_numbers=rows))
        backwards = self.teacher().label(structures[::-1], LabelRequest(base=True, hessian_row_numbers=rows))[::-1]
        for structure, row, first, second in zip(structures, rows, together, backwards, strict=True):
            alone = self.teacher().label([structure], LabelRequest(base=True, hessian_row_numbers=[row]))[0]
            self.assert_same(first, alone)
            self.assert_same(second, alone)

    def test_permuting_the_atoms_permutes_the_label(self) -> None:
        for structure in self.structures():
            order = np.random.default_rng(7).permutation(len(structure))
            moved = _moved(structure, positions=structure.positions[order])
            moved = replace(moved, atomic_numbers=structure.atomic_numbers[order])
            label, other = self.base([structure])[0], self.base([moved])[0]
            _close(_energy(other), _energy(label), within=self.batch_tolerance)
            _close(other.forces, _present(label.forces)[order], within=10 * self.batch_tolerance)
            if label.atomic_energies is not None:
                _close(other.atomic_energies, label.atomic_energies[order], within=self.batch_tolerance)

    def test_forces_are_minus_the_derivative_of_the_energy(self) -> None:
        for structure in self.structures():
            forces = _present(self.base([structure])[0].forces)
            energies = self.energies(
                [
                    _displaced(structure, row=row, by=sign * self.step)
                    for row in range(3 * len(structure))
                    for sign in (1, -1)
                ]
            )
            slopes = (energies[::2] - energies[1::2]) / (2 * self.step)
            _close(forces.ravel(), -slopes, within=self.force_tolerance)

    def test_stress_is_the_derivative_by_strain_over_the_volume(self) -> None:
        structure = self.structures()[0]
        stress, volume = _present(self.base([structure])[0].stress), structure.volume
        assert volume is not None
        _close(stress, stress.T, within=self.stress_tolerance)
        for first, second in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
            strain = np.zeros((3, 3))
            strain[first, second] += 0.5 * self.step
            strain[second, first] += 0.5 * self.step
            stretched, pressed = self.energies([_strained(structure, strain), _strained(structure, -strain)])
            slope = (stretched - pressed) / (2 * self.step) / volume
            _close(stress[first, second], slope, within=self.stress_tolerance)

    def test_hessian_rows_are_minus_the_derivative_of_the_forces(self) -> None:
        structures = self.structures()
        rows = [np.random.default_rng(3).permutation(3 * len(item))[:4].astype(np.int32) for item in structures]
        labels = self.teacher().label(structures, LabelRequest(base=False, hessian_row_numbers=rows))
        for structure, row_numbers, label in zip(structures, rows, labels, strict=True):
            assert _present(label.hessian_row_numbers).tolist() == row_numbers.tolist()
            for row, found in zip(row_numbers.tolist(), _present(label.hessian_rows), strict=True):
                pair = self.base([_displaced(structure, row=row, by=sign * self.step) for sign in (1, -1)])
                slope = (_present(pair[0].forces) - _present(pair[1].forces)) / (2 * self.step)
                _close(found, -slope, within=self.hessian_tolerance)

    def test_a_request_for_rows_only_gives_rows_only(self) -> None:
        rows = np.array([0], np.int32)
        structure = self.structures()[0]
        label = self.teacher().label([structure], LabelRequest(base=False, hessian_row_numbers=[rows]))[0]
        assert _energy(label) is None
        assert label.forces is None
        assert _present(label.hessian_rows).shape == (1, len(structure), 3)

    def test_structures_may_ask_for_different_numbers_of_rows(self) -> None:
        structures = self.structures()
        every = [np.arange(3 * len(structure), dtype=np.int32) for structure in structures]
        some = [rows[: 2 * place] for place, rows in enumerate(every)]
        whole = self.teacher().label(structures, LabelRequest(base=False, hessian_row_numbers=every))
        parts = self.teacher().label(structures, LabelRequest(base=False, hessian_row_numbers=some))
        for rows, part, full in zip(some, parts, whole, strict=True):
            if len(rows) == 0:
                assert part.hessian_rows is None
                continue
            _close(part.hessian_rows, _present(full.hessian_rows)[rows], within=10 * self.batch_tolerance)

    def test_the_energy_is_the_sum_of_the_atomic_energies(self) -> None:
        info = self.teacher().info
        for label in self.base(self.structures()):
            if label.atomic_energies is None:
                continue
            assert label.atomic_energies_include_e0 == info.e0_included
            if info.e0_included:
                _close(_energy(label), label.atomic_energies.sum(), within=self.batch_tolerance)

    def test_an_element_that_is_not_covered_is_an_error_that_names_it(self) -> None:
        if self.foreign is None:
            return
        request = LabelRequest(base=True, hessian_row_numbers=[NO_ROWS])
        try:
            self.teacher().label([self.foreign], request)
        except LabelError as error:
            assert "not cover" in str(error)  # noqa: PT017 - pytest is not a dependency of mlipdb.testing
        else:
            raise AssertionError("no LabelError")

    def test_a_charge_is_refused_unless_the_teacher_takes_it(self) -> None:
        info = self.teacher().info
        if info.takes_charge:
            return
        request = LabelRequest(base=True, hessian_row_numbers=[NO_ROWS])
        try:
            self.teacher().label([replace(self.structures()[0], charge=1.0)], request)
        except LabelError as error:
            assert "knows no charges" in str(error)  # noqa: PT017 - pytest is not a dependency of mlipdb.testing
        else:
            raise AssertionError("no LabelError")

    def test_edges_do_not_shrink_when_the_cell_is_doubled(self) -> None:
        small = self.structures()[0]
        doubled = make_structure(
            np.tile(small.atomic_numbers, 2),
            np.concatenate([small.positions, small.positions + small.cell[0]]),
            cell=small.cell * np.array([[2.0], [1.0], [1.0]]),
            pbc=small.pbc,
        )
        assert self.teacher().edges(doubled) == 2 * self.teacher().edges(small)

    def base(self, structures: Sequence[Structure]) -> list[Label]:
        """Labels without Hessian rows."""
        request = LabelRequest(base=True, hessian_row_numbers=[NO_ROWS] * len(structures))
        return self.teacher().label(structures, request)

    def energies(self, structures: Sequence[Structure]) -> Float64[np.ndarray, " structures"]:
        """Total energies in eV."""
        return np.array([getattr(label, self.teacher().info.energy) for label in self.base(structures)])

    def assert_same(self, first: Label, second: Label) -> None:
        """Equal to rounding in everything."""
        for name in (*ENERGY_KINDS, "atomic_energies", "forces", "stress", "hessian_rows"):
            one, other = getattr(first, name), getattr(second, name)
            assert (one is None) == (other is None)
            if one is not None:
                _close(one, other, within=10 * self.batch_tolerance)


def _energy(label: Label) -> float | None:
    return None if label.first_energy is None else label.first_energy[1]


def _present(array: np.ndarray | None) -> np.ndarray:
    assert array is not None
    return array


def _close(found: np.ndarray | float | None, expected: np.ndarray | float | None, *, within: float) -> None:
    """Equal up to an absolute error."""
    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found, expected, atol=within, rtol=0)


def _moved(
    structure: Structure, *, positions: Float64[np.ndarray, "atoms 3"], cell: Float64[np.ndarray, "3 3"] | None = None
) -> Structure:
    """A new structure, so that its content hash is not the cached one of the old."""
    return Structure(structure.atomic_numbers, positions, structure.cell if cell is None else cell, structure.pbc)


def _displaced(structure: Structure, *, row: int, by: float) -> Structure:
    positions = structure.positions.copy()
    positions[row // 3, row % 3] += by
    return _moved(structure, positions=positions)


def _strained(structure: Structure, strain: Float64[np.ndarray, "3 3"]) -> Structure:
    deformation = np.eye(3) + strain
    return _moved(structure, positions=structure.positions @ deformation, cell=structure.cell @ deformation)
