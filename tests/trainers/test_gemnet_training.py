"""GemNet students, whose scale factors are fitted before the first step."""

import io

import ase
import numpy as np
import pytest

from mlipdb.testing.training import Stopper, training_database
from mlipdb.trainers import Calculator
from mlipdb.trainers.archive import read_arrays, read_document
from mlipdb.trainers.checkpoint import load_model
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.progress import PlainReporter
from mlipdb.trainers.run_files import last_checkpoint
from mlipdb.trainers.train import resume, train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_programs")]

RECIPE = """
epochs = 1

[model]
name = "{name}"
cutoff = 3.0
max_neighbours = 6
n_blocks = 1
n_spherical = 2
n_radial = 4
atom_size = 4
edge_size = 4
triplet_size = 3
rbf_size = 4
cbf_size = 2
bilinear_size = 3
n_atom = 0
n_before_skip = 0
n_after_skip = 0
n_concatenations = 0

[optimizer]
name = "adamw"
learning_rate = 0.001

[loss]
energy_mae = 20.0
forces_l2 = 20.0

[batch]
graphs = 4

[checkpoint]
every_steps = 2

[data]
threads = 1
"""


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return training_database(tmp_path_factory.mktemp("gemnet") / "db")


def recipe_of(folder, name):
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(name=name))
    return load_recipe(str(path))


def kept(run):
    place = last_checkpoint(run.folder)
    document = read_document(place)
    return document["model"]["config"], read_arrays(place, document, "state")


def test_a_direct_student_goes_on_with_the_factors_it_began_with_and_ends_with_the_same_bits(db, tmp_path):
    recipe, listener = recipe_of(tmp_path, "gemnet-dt"), PlainReporter(io.StringIO())
    whole = train(db, "toy", recipe=recipe, reporter=listener, teacher="pair-potential", name="whole")
    with pytest.raises(KeyboardInterrupt):
        train(db, "toy", recipe=recipe, reporter=Stopper(3), teacher="pair-potential", name="stopped")
    told = io.StringIO()
    stopped = resume(db, "stopped", reporter=PlainReporter(told))
    assert "scale factors fitted on" in listener.stream.getvalue()
    assert "scale factors" not in told.getvalue()
    (config, arrays), (config_again, arrays_again) = kept(whole), kept(stopped)
    assert config == config_again
    assert len(config["scale_factors"]["force_radial"]) == 2
    assert all(0.1 < value < 100 for values in config["scale_factors"].values() for value in values)
    assert arrays.keys() == arrays_again.keys()
    assert all(arrays[name].tobytes() == arrays_again[name].tobytes() for name in arrays)


def test_a_conservative_student_learns_and_has_a_stress(db, tmp_path):
    recipe = recipe_of(tmp_path, "gemnet-t")
    result = train(db, "toy", recipe=recipe, reporter=PlainReporter(io.StringIO()), name="conservative")
    assert result.metrics["epochs"][-1]["validation"]["stress_mae"] > 0
    assert load_model(result.best).is_fitted
    atoms = ase.Atoms("HO", [[0.1, 0, 0], [1.2, 1.1, 1.2]], cell=[2.4] * 3, pbc=True)
    atoms.calc = Calculator(result.best)
    assert np.isfinite(atoms.get_stress()).all()
    assert np.abs(atoms.get_forces()).max() > 0
