import ase
import ase.build
import jax
import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from ase.optimize import FIRE

from mlipdb.trainers import Calculator
from mlipdb.trainers.models import convolution
from mlipdb.trainers.models.base import AbstractForceField, ElementError
from mlipdb.trainers.models.derive import ROWS_AT_ONCE
from mlipdb.trainers.models.nequix import Nequix, NequixConfig


class Counted(Nequix):
    """Notes when it is traced, which is when it is compiled, and for how many rows at once."""

    def __call__(self, graph, edge_vectors):
        TRACES.append(graph.positions.shape)
        return super().__call__(graph, edge_vectors)

    def for_rows(self, count):
        ROWS.append(count)
        return super().for_rows(count)


TRACES, ROWS = [], []
CONFIG = NequixConfig(
    atomic_numbers=(11, 17), e0=(-70000.125, -3.0), hidden_irreps="2x0e + 1x1o", lmax=1, n_layers=1, cutoff=4.0,
    radial_mlp_layers=1, radial_mlp_size=4, avg_n_neighbors=20.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> AbstractForceField:
    return Counted.create(CONFIG, key=jax.random.key(3))


def salt() -> ase.Atoms:
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.4)
    atoms.rattle(0.1, seed=1)
    return atoms


def test_energy_is_the_sum_of_atomic_energies_with_e0(model):
    atoms = salt()
    atoms.calc = Calculator(model)
    assert atoms.get_potential_energy() == atoms.get_potential_energies().sum()
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert atoms.get_potential_energies()[0] == pytest.approx(-70000.125, abs=20)


def test_large_reference_energies_do_not_hide_small_differences(model):
    # in float32 a total of -70000 eV has steps of 8 meV
    first, second = salt(), salt()
    second.positions[0, 0] += 1e-3
    first.calc = second.calc = Calculator(model)
    change = second.get_potential_energy() - first.get_potential_energy()
    assert change == pytest.approx(-1e-3 * first.get_forces()[0, 0], abs=2e-5)
    assert change != 0.0


def test_a_relaxation_compiles_once(model):
    TRACES.clear()
    atoms = salt()
    atoms.calc = Calculator(model)
    FIRE(atoms, logfile=None).run(fmax=1e-3, steps=15)
    atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)
    atoms.get_stress()
    assert len(TRACES) <= 1


def test_hessian_is_symmetric_and_is_the_derivative_of_forces(model):
    atoms = salt()
    atoms.calc = Calculator(model)
    hessian = atoms.calc.get_hessian(atoms)
    assert hessian.shape == (2, 3, 2, 3)
    flat = hessian.reshape(6, 6)
    np.testing.assert_allclose(flat, flat.T, atol=1e-4 * np.abs(flat).max())
    np.testing.assert_allclose(hessian.sum(axis=2), 0, atol=1e-4 * np.abs(flat).max())
    ahead, behind = atoms.copy(), atoms.copy()
    ahead.positions[1, 2] += 0.01
    behind.positions[1, 2] -= 0.01
    ahead.calc = behind.calc = atoms.calc
    slope = -(ahead.get_forces() - behind.get_forces()) / 0.02
    np.testing.assert_allclose(hessian[1, 2], slope, atol=0.01 * np.abs(flat).max())


def test_rows_that_go_through_in_chunks_are_those_in_one_piece(model, monkeypatch):
    atoms = salt()
    whole = Calculator(model).get_hessian(atoms)
    monkeypatch.setattr(convolution, "CPU_CHUNK_BYTES", 1)
    chunked = Calculator(Counted.create(CONFIG, key=jax.random.key(3))).get_hessian(atoms)
    assert ROWS[-1] == ROWS_AT_ONCE
    np.testing.assert_allclose(chunked, whole, rtol=0, atol=1e-5 * np.abs(whole).max())
    assert whole.any()


def test_stress_of_a_molecule_is_refused(model):
    atoms = ase.Atoms("NaCl", [[0, 0, 0], [0, 0, 2.4]])
    atoms.calc = Calculator(model)
    assert np.isfinite(atoms.get_forces()).all()
    with pytest.raises(PropertyNotImplementedError, match="three periodic directions"):
        atoms.get_stress()


def test_an_isolated_atom_has_no_forces(model):
    atoms = ase.Atoms("Na", [[1.0, 2.0, 3.0]])
    atoms.calc = Calculator(model)
    assert not atoms.get_forces().any()


def test_an_unknown_element_is_named(model):
    atoms = ase.Atoms("Na2Po")
    atoms.calc = Calculator(model)
    with pytest.raises(ElementError, match=r"has Po.*covers 2 elements: Na Cl"):
        atoms.get_potential_energy()
