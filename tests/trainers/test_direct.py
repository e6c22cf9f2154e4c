"""A student with forces of its own, from training to use."""

import io

import ase
import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError

from mlipdb.errors import ConfigError, LabelError
from mlipdb.labelling.teacher import TeacherOptions
from mlipdb.teachers.nequix import NequixTeacher
from mlipdb.testing.training import Stopper
from mlipdb.trainers import Calculator
from mlipdb.trainers.checkpoint import load_model
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.evaluate import evaluate, table
from mlipdb.trainers.models.painn import Painn
from mlipdb.trainers.progress import PlainReporter
from mlipdb.trainers.runs import run_names
from mlipdb.trainers.train import resume, train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_programs")]

RECIPE = """
epochs = 2

[model]
name = "painn"
cutoff = 3.0
max_neighbours = 6
hidden_size = 4
n_layers = 1
n_radial = 3

[loss]
energy_mae = 20.0
forces_l2 = 20.0

[batch]
graphs = 4

[data]
threads = 1
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny-painn.toml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture(scope="module")
def direct(trained, recipe):
    """A PaiNN trained with a teacher's Hessian rows on the toy database."""
    chosen, reporter = load_recipe(recipe), PlainReporter(io.StringIO())
    return train(trained[0], "toy", recipe=chosen, reporter=reporter, teacher="pair-potential", name="direct")


def test_it_learns_energies_forces_atomic_energies_and_rows_but_no_stress(direct):
    validation = direct.metrics["epochs"][-1]["validation"]
    assert validation["forces_mae"] > 0
    assert validation["stress_mae"] is None
    model = load_model(direct.best)
    assert isinstance(model, Painn)
    assert model.is_fitted


def test_its_evaluation_says_nothing_of_stress(trained, direct):
    found = evaluate(trained[0], "direct", subset="toy", splits=("test",))
    ours, baseline = found.rows
    assert ours["stress_mae"] is None
    assert baseline["stress_mae"] > 0
    assert table(found).splitlines()[1].split()[-2:] == ["-", "-"]


def test_its_calculator_gives_forces_and_says_why_there_is_no_stress(direct):
    atoms = ase.Atoms(
        "HO", [[0.1, 0, 0], [1.2, 1.1, 1.2]], cell=[2.4] * 3, pbc=True, calculator=Calculator(direct.best)
    )
    assert np.abs(atoms.get_forces()).max() > 0
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError, match="predicts forces directly"):
        atoms.get_stress()
    assert atoms.calc.get_hessian(atoms).shape == (2, 3, 2, 3)


def test_a_loss_that_needs_a_stress_is_refused_before_there_is_a_run(trained, recipe, listener):
    chosen = load_recipe(recipe, settings=["loss.stress_mae=1"])
    with pytest.raises(ConfigError, match=r"painn cannot be trained with stress_mae.*--set loss\.stress_mae=0"):
        train(trained[0], "toy", recipe=chosen, reporter=listener, name="refused")
    assert "refused" not in run_names(trained[0])


def test_it_cannot_be_the_teacher_of_labels_that_have_a_stress(direct):
    with pytest.raises(LabelError, match=r"Painn.*no stress"):
        NequixTeacher.load("nequix", TeacherOptions(weights=direct.best))


def test_a_run_that_goes_on_keeps_the_factors_that_it_fitted(trained, direct, recipe):
    chosen = load_recipe(recipe, settings=["checkpoint.every_steps=2"])
    with pytest.raises(KeyboardInterrupt):
        train(trained[0], "toy", recipe=chosen, reporter=Stopper(3), teacher="pair-potential", name="stopped")
    result = resume(trained[0], "stopped", reporter=PlainReporter(io.StringIO()))
    whole, stopped = load_model(direct.best), load_model(result.best)
    assert stopped.config == whole.config
    assert result.metrics["epochs"] == direct.metrics["epochs"]
