from dataclasses import replace

import jax
import numpy as np
import pytest

from mlipdb.generate.shortest import radii_sum, shortest_fraction
from mlipdb.structures import make_structure
from mlipdb.testing.training import tiny_nequix
from mlipdb.trainers.forgetting.answers import answers
from mlipdb.trainers.forgetting.cells import FRACTIONS, cell_curves
from mlipdb.trainers.forgetting.curve import Curve, Faults
from mlipdb.trainers.forgetting.dimers import dimer_curves
from mlipdb.trainers.forgetting.drift import energy_drift
from mlipdb.trainers.models.nequix import Nequix

PLACES = np.linspace(0.4, 3.0, 53)


@pytest.fixture(scope="module")
def model():
    config = tiny_nequix((1, 6, 8), (-1.0, -2.0, -3.0), avg_n_neighbors=10.0, scale=0.2)
    return Nequix.create(config, key=jax.random.key(3))


@pytest.fixture
def crystal():
    positions = [[0.0, 0.0, 0.0], [1.3, 1.2, 1.25]]
    return make_structure([6, 8], positions, cell=2.6 * np.eye(3) + 0.1, pbc=(True,) * 3)


def curve(energies, forces=None):
    slopes = -np.gradient(energies, PLACES) if forces is None else forces
    return Curve(name="A-B", fractions=PLACES, energies=energies, forces=slopes)


def lennard_jones(places):
    return 4.0 * ((0.9 / places) ** 12 - (0.9 / places) ** 6)


def test_a_repulsive_wall_has_no_fault():
    found = curve(lennard_jones(PLACES))
    assert (found.wall, found.breaks, found.hole, found.flips) == (True, 0, 0.0, 0)
    assert found.reach == PLACES[0]


def test_a_hole_behind_the_wall_is_found_with_its_depth():
    energies = lennard_jones(PLACES)
    outside = energies[PLACES >= 0.7].min()
    energies[:2] = outside - 5.0, outside - 4.0
    found = curve(energies)
    assert found.hole == pytest.approx(5.0)
    assert (found.wall, found.flips) == (False, 1)
    assert found.breaks == 2  # into the hole, and on within it
    assert found.reach == PLACES[2]  # the innermost place up to which the energy rises


def test_a_force_that_attracts_all_through_the_wall_is_one_flip():
    assert curve(lennard_jones(PLACES), forces=-np.ones(len(PLACES))).flips == 1
    wiggles = np.where(np.arange(len(PLACES)) % 2, 1.0, -1.0)
    assert curve(lennard_jones(PLACES), forces=wiggles).flips >= 5


def test_a_value_that_is_not_finite_is_a_fault_of_every_kind():
    energies, forces = lennard_jones(PLACES), np.ones(len(PLACES))
    energies[1], forces[1] = np.nan, np.nan
    found = curve(energies, forces=forces)
    assert not found.wall
    assert found.hole == float("inf")
    assert found.flips > 0


def test_faults_are_counted_over_curves():
    hollow = lennard_jones(PLACES)
    hollow[0] = -10.0
    found = Faults.of([curve(lennard_jones(PLACES)), curve(hollow)])
    assert (found.curves, found.walls, found.breaks, found.holes, found.flips) == (2, 1, 1, 1, 1)
    assert found.reach == pytest.approx((PLACES[0] + PLACES[1]) / 2)
    assert found.deepest == pytest.approx(9.0, abs=0.1)


def test_every_pair_of_elements_has_a_curve_whose_force_is_the_slope_of_its_energy(model):
    curves = dimer_curves(model, {1, 8})
    assert [each.name for each in curves] == ["H-H", "H-O", "O-O"]
    for each, pair in zip(curves, [(1, 1), (1, 8), (8, 8)], strict=True):
        distances = each.fractions * radii_sum(*pair)
        slope = np.gradient(each.energies, distances, edge_order=2)
        inner = slice(2, 20)  # of even steps
        np.testing.assert_allclose(each.forces[inner], -slope[inner], atol=0.1 * np.abs(slope).max() + 1e-3)
        assert np.abs(each.energies[distances > model.cutoff]).max(initial=0.0) < 1e-5


def test_a_dimer_is_one_molecule_of_two_atoms(model):
    [found] = dimer_curves(model, {8})
    place = 30
    distance = found.fractions[place] * radii_sum(8, 8)
    pair = make_structure([8, 8], [[0.0, 0.0, 0.0], [0.0, distance, 0.0]])
    apart = make_structure([8, 8], [[0.0, 0.0, 0.0], [0.0, 50.0, 0.0]])
    near, far = answers(model, [pair, apart])
    assert found.energies[place] == pytest.approx(near.energy - far.energy, abs=1e-5)
    assert found.forces[place] == pytest.approx(near.forces[1, 1], abs=1e-5)


def test_cells_are_pressed_to_the_fractions_that_the_curve_names(model, crystal):
    factor = FRACTIONS[5] / shortest_fraction(crystal)
    pressed = replace(crystal, positions=crystal.positions * factor, cell=crystal.cell * factor)
    assert shortest_fraction(pressed) == pytest.approx(FRACTIONS[5])
    [found] = cell_curves(model, [crystal])
    assert found.energies[5] == pytest.approx(answers(model, [pressed])[0].energy / 2, abs=1e-5)


def test_a_molecule_is_pressed_as_a_cell_is(model):
    molecule = make_structure([1, 8, 1], [[0.97, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.97, 0.0]])
    [found] = cell_curves(model, [molecule])
    pressed = replace(molecule, positions=molecule.positions * FRACTIONS[0])  # O-H 0.66 + 0.31 Å
    assert found.energies[0] == pytest.approx(answers(model, [pressed])[0].energy / 3, abs=1e-5)


def test_answers_are_the_same_alone_and_together_and_know_no_e0(model, crystal):
    large = make_structure([1] * 30, np.random.default_rng(0).uniform(0, 12, (30, 3)))
    together = answers(model, [crystal, large, crystal])
    alone = [answers(model, [each])[0] for each in (crystal, large)]
    for found, expected in zip(together, [*alone, alone[0]], strict=True):
        assert found.energy == pytest.approx(expected.energy, abs=1e-5)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-5)
    assert together[0].stress is not None
    assert together[1].stress is None
    other = model.with_reference(e0={6: 77.0})
    assert answers(other, [crystal])[0].energy == together[0].energy


def test_conservative_dynamics_keeps_its_energy_and_repeats_itself(model, crystal):
    found = energy_drift(model, crystal, steps=40, seed=1)
    assert not found.exploded
    assert abs(found.drift) < 50
    assert found == energy_drift(model, crystal, steps=40, seed=1)
    assert found.drift != energy_drift(model, crystal, steps=40, seed=2).drift


def test_dynamics_that_explodes_is_told_and_not_averaged(model, crystal):
    wild = model.with_reference(e0={}, scale=1e5)
    found = energy_drift(wild, crystal, steps=40)
    assert found.exploded
    assert found.drift is None
    assert found.steps < 40
