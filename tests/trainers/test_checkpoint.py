import json
import re
import threading

import jax
import numpy as np
import pytest

from mlipdb.errors import CorruptError, NotFoundError
from mlipdb.trainers import archive
from mlipdb.trainers.archive import write_archive
from mlipdb.trainers.arrays import named_arrays
from mlipdb.trainers.background import Background
from mlipdb.trainers.checkpoint import load_model, save_model
from mlipdb.trainers.run_files import add_checkpoint, best_checkpoint, last_checkpoint
from mlipdb.trainers.student import DataFacts, make_student

OPTIONS = {"name": "nequix", "hidden_irreps": "2x0e + 1x1o", "lmax": 1, "n_layers": 2, "cutoff": 3.0}
OPTIONS |= {"radial_basis_size": 2, "radial_mlp_size": 2, "radial_mlp_layers": 1}
FACTS = DataFacts(
    atomic_numbers=(1, 8), e0=(-13.6057, -432.1234567890123), scale=0.123, shift=-0.5, avg_n_neighbors=14.25
)


@pytest.fixture(scope="module")
def model():
    return make_student(OPTIONS, FACTS, seed=0)


@pytest.fixture
def saved(model, tmp_path):
    save_model(tmp_path / "saved", model, name="nequix", notes={"energy": "energy_uncorrected"})
    return tmp_path / "saved"


def same(first, second):
    one, other = named_arrays(first), named_arrays(second)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_model_comes_back_with_every_bit_and_setting(model, saved):
    loaded = load_model(saved)
    assert same(loaded, model)
    assert loaded.to_config() == model.to_config()
    assert jax.tree.structure(loaded) == jax.tree.structure(model)


def test_a_checkpoint_is_json_and_arrays_that_need_no_pickle(saved):
    document = json.loads((saved / "checkpoint.json").read_text())
    assert (document["format"], document["version"]) == ("mlipdb-checkpoint", 1)
    with np.load(saved / "model.npz", allow_pickle=False) as arrays:
        assert {array.dtype for array in arrays.values()} == {np.dtype("<f4")}


def test_the_kept_checkpoint_of_version_1_still_loads(root):
    loaded = load_model(root / "tests" / "data" / "checkpoint_v1")
    expected = json.loads((root / "tests" / "data" / "checkpoint_v1_sums.json").read_text())
    assert {name: float(array.sum(dtype=np.float64)) for name, array in named_arrays(loaded).items()} == expected
    assert loaded.e0.tolist() == [-13.6057, -432.1234567890123]


def test_changed_bytes_are_an_error_that_names_file_and_checksums(saved):
    file = saved / "model.npz"
    data = bytearray(file.read_bytes())
    data[-200] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CorruptError, match=r"model\.npz: sha256 is [0-9a-f]{64}, checkpoint\.json says"):
        load_model(saved)


@pytest.mark.parametrize(("key", "value", "message"), [("version", 2, "version 2"), ("format", "other", "format")])
def test_another_version_or_format_is_an_error_that_says_so(saved, key, value, message):
    file = saved / "checkpoint.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(CorruptError, match=message):
        load_model(saved)


def test_arrays_of_another_model_are_refused_by_name(saved):
    file = saved / "checkpoint.json"
    document = json.loads(file.read_text())
    document["model"]["config"]["radial_mlp_size"] = 3
    file.write_text(json.dumps(document))
    with pytest.raises(CorruptError, match=re.escape("radial")):
        load_model(saved)


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(NotFoundError, match="not a checkpoint"):
        load_model(tmp_path)
    with pytest.raises(NotFoundError, match="neither a checkpoint folder"):
        load_model(tmp_path / "absent.nqx")


def test_published_weights_load_too(shared_data):
    assert load_model(shared_data / "nequix" / "models" / "nequix-mp-1.nqx").cutoff == 6.0


def write(run, name, *, best):
    add_checkpoint(run, name, {"notes": {}}, {"model": {"x": np.arange(3.0)}}, best=best)


def test_a_run_keeps_its_last_and_its_best_checkpoint_only(tmp_path):
    for name, best in (("1", True), ("2", True), ("3", False), ("4", False)):
        write(tmp_path, name, best=best)
    assert last_checkpoint(tmp_path).name == "4"
    assert best_checkpoint(tmp_path).name == "2"
    assert {item.name for item in (tmp_path / "checkpoints").iterdir()} == {"2", "4"}


@pytest.mark.parametrize("victim", ["rename", "replace_text"])
def test_a_crash_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch, victim):
    write(tmp_path, "1", best=True)

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if victim == "rename":
            patch.setattr(archive.Path, "rename", crash)
        else:
            patch.setattr("mlipdb.trainers.run_files.replace_text", crash)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, "2", best=True)
    assert last_checkpoint(tmp_path).name == best_checkpoint(tmp_path).name == "1"
    write(tmp_path, "2", best=True)
    assert {item.name for item in (tmp_path / "checkpoints").iterdir()} == {"2"}


def test_checkpoints_are_written_beside_the_training_and_told_of_when_they_are_there(tmp_path):
    told, go = [], threading.Event()

    def slowly(name):
        go.wait(30)
        write(tmp_path, name, best=False)

    with Background() as saving:
        saving.start(lambda: slowly("1"), then=lambda: told.append(last_checkpoint(tmp_path).name))
        saving.poll()
        assert (told, last_checkpoint(tmp_path)) == ([], None)
        go.set()
        saving.start(lambda: slowly("2"), then=lambda: told.append(last_checkpoint(tmp_path).name))
        assert told == ["1"]
    assert told == ["1", "2"]


def test_a_checkpoint_that_cannot_be_written_stops_the_training(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(FileExistsError), Background() as saving:
        saving.start(lambda: write(tmp_path, "1", best=False), then=lambda: None)


def test_a_checkpoint_that_was_begun_is_finished_when_the_training_fails(tmp_path):
    def fail():
        with Background() as saving:
            saving.start(lambda: write(tmp_path, "1", best=False), then=lambda: None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert last_checkpoint(tmp_path).name == "1"


def test_bytes_do_not_depend_on_when_they_are_written(tmp_path):
    for name in ("one", "two"):
        write_archive(tmp_path / name, {}, {"model": {"x": np.arange(3.0)}})
    assert (tmp_path / "one" / "model.npz").read_bytes() == (tmp_path / "two" / "model.npz").read_bytes()
