"""A head is part of a model's name: RUN@HEAD and PATH@HEAD, wherever a model is named."""

import dataclasses
import json

import ase
import jax
import numpy as np
import pytest
import typer
import typer.core
from typer.testing import CliRunner

from mlipdb.cli.app import app
from mlipdb.errors import NotFoundError
from mlipdb.labelling.teacher import TeacherOptions
from mlipdb.subsets.subset import load
from mlipdb.teachers.nequix import NequixTeacher
from mlipdb.testing.training import tiny_nequix, training_database
from mlipdb.trainers import Calculator
from mlipdb.trainers.arrays import named_arrays
from mlipdb.trainers.checkpoint import load_model, model_document, read_notes, split_head
from mlipdb.trainers.checkpoint_facts import checkpoint_facts, export_nqx
from mlipdb.trainers.evaluate import find_target
from mlipdb.trainers.found_model import find_model
from mlipdb.trainers.models.heads import Head, with_heads
from mlipdb.trainers.models.nequix import Nequix
from mlipdb.trainers.models.nqx import load_nqx
from mlipdb.trainers.run_files import add_checkpoint
from mlipdb.trainers.runs import start_run

CONFIG = tiny_nequix((1, 6, 8), (-1.5, -7.25, -5.0))
HEADS = (
    Head(name="target", energy="energy_corrected", method="toy-dft", e0=(-1.0, -7.0, -5.5)),
    Head(name="foundation", energy="energy_uncorrected"),
)


@pytest.fixture(autouse=True)
def contexts_are_what_typer_says_they_are(monkeypatch):
    """Typer declares typer.Context and hands over its base class, which the shape checker refuses; so make it true."""
    for command in (typer.core.TyperCommand, typer.core.TyperGroup):
        monkeypatch.setattr(command, "context_class", typer.Context)


def headed():
    """Two heads that differ."""
    model = with_heads(Nequix.create(CONFIG, key=jax.random.key(2)), HEADS)
    other = dataclasses.replace(model.readouts[1], readout=model.readouts[1].readout + 1.0)
    return dataclasses.replace(model, readouts=(model.readouts[0], other))


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """A database with the run ``two``, whose checkpoint has two heads."""
    db = training_database(tmp_path_factory.mktemp("heads") / "db")
    folder = db.path / "runs" / "two"
    config = {"recipe": {"data": {"energy": "energy_corrected"}}, "method_id": None}
    start_run(db, "two", kind="train", config=config, subset=load(db, "toy"), methods={}, path=folder)
    document = model_document(headed(), name="headed", notes={"energy": "energy_corrected"})
    add_checkpoint(folder, "1", document, {"model": named_arrays(headed())}, best=True)
    return db


@pytest.fixture
def folder(db):
    return db.path / "runs" / "two"


def same(first, second):
    one, other = named_arrays(first), named_arrays(second)
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_path_and_a_head_are_told_apart_at_the_last_at(folder, tmp_path):
    assert split_head(f"{folder}@target") == (folder, "target")
    assert split_head(folder) == (folder, None)
    (tmp_path / "odd@name").mkdir()
    assert split_head(tmp_path / "odd@name") == (tmp_path / "odd@name", None)
    assert split_head("a@b/c") == (split_head("a@b/c")[0], None)


@pytest.mark.parametrize(("name", "place"), [("two", 0), ("two@target", 0), ("two@foundation", 1)])
def test_a_run_and_a_head_are_found_and_loaded_as_a_plain_model(db, name, place):
    model = load_model(find_model(name, db=db))
    assert type(model) is Nequix
    assert same(model, headed().single(place))
    assert model.e0.tolist() == headed().single(place).e0.tolist()


def test_an_unknown_head_is_an_error_that_names_the_known_ones(db, folder):
    with pytest.raises(NotFoundError, match=r"no head 'foundatio'.* Its heads: target, foundation"):
        load_model(f"{folder}@foundatio")
    with pytest.raises(NotFoundError, match="no head 'x'"):
        read_notes(folder.with_name("two@x"))
    with pytest.raises(NotFoundError, match="'tow' is no file"):
        find_model("tow@target", db=db)


def test_a_file_of_one_readout_has_no_heads(tiny_nqx):
    with pytest.raises(NotFoundError, match="one readout"):
        load_model(f"{tiny_nqx}@target")


def test_a_calculator_is_of_the_head_that_its_name_has(db, folder):
    atoms = ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.2]])
    energies = {}
    for name in ("two", "two@target", "two@foundation", f"{folder}@foundation"):
        atoms.calc = Calculator(name, db=db)
        energies[name] = atoms.get_potential_energy()
    assert energies["two"] == energies["two@target"]
    assert energies["two@foundation"] == energies[f"{folder}@foundation"]
    assert abs(energies["two"] - energies["two@foundation"]) > 0.1


def test_an_evaluation_compares_a_head_with_what_it_learnt(db):
    target, foundation = find_target(db, "two@target"), find_target(db, "two@foundation")
    assert (target.energy, target.name) == ("energy_corrected", "two@target")
    assert db.method(target.method_id).name == "toy-dft"
    assert (foundation.energy, foundation.method_id) == ("energy_uncorrected", None)


def test_a_teacher_remembers_its_head_and_has_its_energies(folder):
    teachers = [
        NequixTeacher.load("nequix", TeacherOptions(weights=path))
        for path in (folder, folder.with_name("two@target"), folder.with_name("two@foundation"))
    ]
    assert [teacher.info.settings for teacher in teachers] == [{"head": n} for n in ("target", "target", "foundation")]
    assert len({teacher.info.weights_sha256 for teacher in teachers}) == 1
    assert teachers[1].info.method() != teachers[2].info.method()


def test_facts_list_the_heads_and_are_those_of_one(folder):
    first, second = checkpoint_facts(folder), checkpoint_facts(folder.with_name("two@foundation"))
    assert (first.model, first.head, second.head) == ("nequix", "target", "foundation")
    assert (first.energy, second.energy) == ("energy_corrected", "energy_uncorrected")
    assert (first.e0["O"], second.e0["O"]) == (-5.5, -5.0)
    assert first.parameters == second.parameters == sum(array.size for array in named_arrays(headed()).values())
    assert [head["name"] for head in json.loads(json.dumps(first.describe()))["heads"]] == ["target", "foundation"]


def test_any_head_is_written_as_nqx(folder, tmp_path):
    for place, name in enumerate(("target", "foundation")):
        export_nqx(folder.with_name(f"two@{name}"), tmp_path / f"{name}.nqx")
        assert same(load_nqx(tmp_path / f"{name}.nqx")[0], headed().single(place))


def run(db, *words):
    done = CliRunner().invoke(app, ["--db", str(db.path), *map(str, words)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_the_command_shows_heads_and_exports_the_one_asked_for(db, tmp_path):
    lines = run(db, "checkpoint", "show", "two")
    assert "target: energy_corrected by toy-dft; E0 -7 to -1 eV, told of here" in lines
    assert "foundation: energy_uncorrected by the structures' own methods; E0 -7.25 to -1.5 eV\n" in lines
    run(db, "checkpoint", "export", "two", "--head", "foundation", "--to", tmp_path / "f.nqx")
    assert same(load_nqx(tmp_path / "f.nqx")[0], headed().single(1))
    assert json.loads(run(db, "checkpoint", "show", "two@foundation", "--json"))["head"] == "foundation"
