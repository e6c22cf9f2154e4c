import numpy as np
import pytest

from mlipdb.trainers.report.errors import (
    Catalogued,
    element_errors,
    space_group_errors,
    total_errors,
    worst_structures,
)
from mlipdb.trainers.report.predictions import Predictions


def pairs(errors):
    """Labels of 1 beside predictions that are wrong by so much."""
    errors = np.array(errors, dtype=np.float64)
    return np.stack([np.ones_like(errors), 1.0 + errors], axis=-1)


# NaCl wrong by +20 meV; Na without a labelled energy, of the same space group; Cl2 without forces, wrong by -80 meV.
FOUND = Predictions(
    ids=np.array([11, 12, 13]),
    atoms=np.array([2, 1, 2]),
    compositions=({11: 1, 17: 1}, {11: 1}, {17: 2}),
    energies=pairs([0.020, 5.0, -0.080]),
    has_energy=np.array([True, False, True]),
    forces=pairs([[0.003, 0.0, 0.004], [0.0, 0.0, 0.0], [0.006, -0.006, 0.0]]),
    force_elements=np.array([11, 17, 11]),
    force_places=np.array([0, 0, 1]),
    stresses=pairs(np.full((1, 3, 3), -0.002)),
    stress_places=np.array([1]),
)
ENTRIES = [
    Catalogued(external_id="salt", formula="ClNa", space_group=225, space_group_symbol="Fm-3m"),
    Catalogued(external_id="metal", formula="Na", space_group=225, space_group_symbol="Fm-3m"),
    Catalogued(external_id="gas", formula="Cl", space_group=None, space_group_symbol=None),
]


def test_totals_count_what_is_labelled_alone():
    found = total_errors(FOUND)
    assert found["energy_mae"] == pytest.approx((10 + 40) / 2)
    assert found["energy_rmse"] == pytest.approx(np.sqrt((100 + 1600) / 2))
    assert found["forces_mae"] == pytest.approx((3 + 4 + 6 + 6) / 9)
    assert found["stress_mae"] == pytest.approx(2.0)


def test_an_element_has_the_forces_of_its_own_atoms_and_the_energies_of_structures_that_hold_it():
    sodium, chlorine = element_errors(FOUND)
    assert (sodium.name, sodium.structures, sodium.atoms) == ("Na", 2, 2)
    assert (sodium.energy_mae, sodium.forces_mae) == (pytest.approx(10), pytest.approx((3 + 4 + 6 + 6) / 6))
    assert (chlorine.name, chlorine.structures, chlorine.atoms) == ("Cl", 2, 3)
    assert (chlorine.energy_mae, chlorine.forces_mae) == (pytest.approx(25), 0.0)


def test_space_groups_are_counted_and_what_is_not_labelled_is_none():
    salts, gas = space_group_errors(FOUND, ENTRIES)
    assert (salts.name, salts.structures, salts.atoms) == ("Fm-3m (225)", 2, 3)
    assert (salts.energy_mae, salts.forces_mae) == (pytest.approx(10), pytest.approx(19 / 9))
    assert (gas.name, gas.energy_mae, gas.forces_mae) == ("none", pytest.approx(40), None)


def test_the_worst_come_first_and_those_without_a_label_are_no_candidates():
    by_energy = worst_structures(FOUND, ENTRIES, by="energy")
    assert [(each.id, each.energy_error) for each in by_energy] == [(13, pytest.approx(-40)), (11, pytest.approx(10))]
    by_force = worst_structures(FOUND, ENTRIES, by="forces")
    assert [(each.external_id, each.largest_force_error) for each in by_force] == [
        ("metal", pytest.approx(6 * np.sqrt(2))), ("salt", pytest.approx(5))
    ]  # fmt: skip
    assert by_force[0].stress_mae == pytest.approx(2.0)
    assert by_force[0].energy_error is None
