import hashlib
import json

import jax
import numpy as np
import pytest

from mlipdb.errors import ConfigError, CorruptError, NotFoundError, TrainError
from mlipdb.trainers import Calculator
from mlipdb.trainers.arrays import named_arrays
from mlipdb.trainers.checkpoint import load_model, save_model
from mlipdb.trainers.checkpoint_facts import checkpoint_facts, export_nqx
from mlipdb.trainers.found_model import find_model
from mlipdb.trainers.models.nqx import load_nqx
from mlipdb.trainers.models.painn import Painn, PainnConfig


@pytest.fixture
def painn(tmp_path):
    """A small direct student in a checkpoint folder."""
    sizes = {"hidden_size": 4, "n_layers": 1, "n_radial": 4, "scale_factors": (1.0,)}
    config = PainnConfig(atomic_numbers=(1, 8), e0=(-13.6, -432.1), direct=True, **sizes)
    save_model(tmp_path / "painn", Painn.create(config, key=jax.random.key(0)), name="painn")
    return tmp_path / "painn"


def test_a_runs_folder_is_told_as_its_best_checkpoint(trained):
    _, whole, _ = trained
    found = checkpoint_facts(whole.folder)
    assert (found.path, found.kind, found.model, found.cutoff) == (whole.best, "checkpoint", "nequix", 3.0)
    assert (found.energy, found.best_epoch) == ("energy_uncorrected", whole.metrics["best"]["epoch"])
    assert found.best_loss == whole.metrics["best"]["loss"]
    assert (found.epoch, list(found.e0), found.has_stress) == (found.best_epoch, ["H", "C", "O"], True)
    assert found.parameters == sum(array.size for array in named_arrays(load_model(whole.best)).values())
    assert found.settings["hidden_irreps"] == "4x0e"
    assert "atomic_numbers" not in found.settings
    for name, sha256 in found.files.items():
        assert hashlib.sha256((whole.best / name).read_bytes()).hexdigest() == sha256


def test_a_direct_student_has_no_stress_and_no_training_beside_it(painn):
    found = checkpoint_facts(painn)
    assert (found.model, found.has_stress, found.energy, found.epoch, found.is_last) == (
        "painn",
        False,
        None,
        None,
        None,
    )


def test_every_file_of_a_checkpoint_is_compared_with_its_checksum(painn):
    with (painn / "model.npz").open("r+b") as stream:
        stream.seek(100)
        stream.write(b"damage")
    with pytest.raises(CorruptError, match="sha256"):
        checkpoint_facts(painn)


def test_the_weights_that_ship_are_told_as_what_they_are():
    found = checkpoint_facts(find_model("nequix-demo"))
    assert (found.kind, found.model, found.epoch) == ("nqx", "nequix", None)


def test_an_exported_student_is_the_same_model(trained, tmp_path):
    _, whole, _ = trained
    found = export_nqx(whole.folder, tmp_path / "whole.nqx")
    assert (found.kind, found.path) == ("nqx", tmp_path / "whole.nqx")
    student, (read, values) = load_model(whole.folder), load_nqx(tmp_path / "whole.nqx")
    one, other = named_arrays(student), named_arrays(read)
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    np.testing.assert_array_equal(read.e0, student.e0.astype(np.float32))
    assert values["mlipdb_version"]


def test_an_export_replaces_nothing_unasked_and_leaves_nothing_half_done(trained, painn, tmp_path):
    folder, target = trained[1].folder, tmp_path / "model.nqx"
    target.write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        export_nqx(folder, target)
    assert target.read_text() == "mine"
    export_nqx(folder, target, replace=True)
    with pytest.raises(ConfigError, match="does not exist"):
        export_nqx(folder, tmp_path / "absent" / "model.nqx")
    with pytest.raises(TrainError, match=r"holds a Painn; a .nqx file can only hold a Nequix.*Calculator"):
        export_nqx(painn, tmp_path / "painn.nqx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.nqx", "painn"]


def test_a_model_is_found_by_path_by_run_and_by_published_name(trained, painn):
    db, whole, _ = trained
    assert find_model(painn) == painn
    assert find_model("whole", db=db) == find_model("whole", db=db.path) == whole.folder
    assert find_model("nequix-demo", db=db).name == "nequix-demo.nqx"


def test_a_name_that_is_nothing_says_what_there_is(trained):
    db = trained[0]
    with pytest.raises(NotFoundError, match=r"Did you mean 'whole'\?.*runs: .*whole"):
        find_model("whol", db=db)
    with pytest.raises(NotFoundError, match=r"Did you mean 'nequix-mp-1'.*a run needs its database"):
        find_model("nequix-mp1")


@pytest.mark.parametrize("way", ["run", "folder", "checkpoint", "nqx"])
def test_a_student_is_a_calculator_by_name_and_by_path(trained, tmp_path, way):
    import ase

    db, whole, _ = trained
    export_nqx(whole.folder, tmp_path / "whole.nqx")
    calculators = {
        "run": lambda: Calculator("whole", db=db.path),
        "folder": lambda: Calculator(whole.folder),
        "checkpoint": lambda: Calculator(str(whole.best)),
        "nqx": lambda: Calculator(tmp_path / "whole.nqx"),
    }
    atoms = ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.2]], cell=[2.4] * 3, pbc=True)
    forces = []
    for calculator in (Calculator(load_model(whole.best)), calculators[way]()):
        atoms.calc = calculator
        forces.append(atoms.get_forces())
    np.testing.assert_array_equal(*forces)


def test_the_facts_are_plain_values(trained):
    assert json.loads(json.dumps(checkpoint_facts(trained[1].folder).describe()))["model"] == "nequix"
