import ase
import numpy as np
import pytest

from mlipdb.subsets import subset as subsets
from mlipdb.trainers import Calculator
from mlipdb.trainers.batching.records import RecordSource
from mlipdb.trainers.checkpoint import load_model
from mlipdb.trainers.evaluate import evaluate
from mlipdb.trainers.report.errors import total_errors
from mlipdb.trainers.report.predictions import predict_structures


@pytest.fixture(scope="module")
def predicted(trained):
    db, whole, _ = trained
    model = load_model(whole.best)
    ids = subsets.load(db, "toy").splits["train"]
    return db, model, predict_structures(model, RecordSource(db, cutoff=model.cutoff), ids, energy="energy_uncorrected")


def test_each_structure_has_what_the_calculator_says_beside_its_label(predicted):
    db, model, found = predicted
    for place in (0, len(found) - 1):
        structure, label = next(iter(db.read(found.ids[place : place + 1])))
        atoms = ase.Atoms(structure.atomic_numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
        atoms.calc = Calculator(model)
        own = found.force_places == place
        assert found.energies[place] == pytest.approx(
            [label.energy_uncorrected, atoms.get_potential_energy()], abs=1e-4
        )
        np.testing.assert_array_equal(found.forces[own, :, 0], label.forces)
        np.testing.assert_allclose(found.forces[own, :, 1], atoms.get_forces(), atol=1e-4)
        np.testing.assert_allclose(
            found.stresses[found.stress_places == place][0, :, :, 1], atoms.get_stress(voigt=False), atol=1e-5
        )
        assert found.force_elements[own].tolist() == structure.atomic_numbers.tolist()


def test_errors_of_all_together_are_those_that_evaluate_prints(predicted):
    db, _, found = predicted
    row = evaluate(db, "whole", subset="toy", splits=("train",)).rows[0]
    for name, value in total_errors(found).items():
        assert value == pytest.approx(row[name], rel=1e-3), name
