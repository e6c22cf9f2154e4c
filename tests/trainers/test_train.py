import json
import re
import shutil

import numpy as np
import pytest

from mlipdb.errors import ConfigError, NotFoundError, TrainError
from mlipdb.subsets.subset import load
from mlipdb.testing.kill import run_and_kill
from mlipdb.testing.training import Stopper
from mlipdb.trainers.archive import read_arrays, read_document
from mlipdb.trainers.batching.feed import Feed
from mlipdb.trainers.checkpoint import load_model
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.run_files import last_checkpoint
from mlipdb.trainers.runs import find_run
from mlipdb.trainers.train import resume, train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("steps", [1, 4, 6])
def test_an_interrupted_run_that_goes_on_ends_with_the_same_bits(trained, tiny, listener, steps, assert_same_bits):
    # Before the first checkpoint, in the first epoch, in the second.
    db, whole, _ = trained
    name = f"stopped-{steps}"
    with pytest.raises(KeyboardInterrupt):
        train(db, "toy", recipe=tiny(), reporter=Stopper(steps), teacher="pair-potential", name=name)
    assert find_run(db, name).state == "failed"
    result = resume(db, name, reporter=listener)
    assert find_run(db, name).state == "finished"
    assert result.metrics == whole.metrics
    assert_same_bits(result.folder, whole.folder)


def test_the_catalog_holds_what_went_in_and_what_came_out(trained):
    db, whole, _ = trained
    facts = find_run(db, "whole")
    assert (facts.kind, facts.state) == ("train", "finished")
    assert facts.config["recipe"]["model"]["n_layers"] == 1
    assert [entry["epoch"] for entry in facts.metrics["epochs"]] == [1, 2]
    assert facts.metrics["epochs"][-1]["validation"]["energy_mae"] > 0
    assert facts.metrics["best"]["epoch"] in (1, 2)
    assert facts.path == whole.folder
    assert load_recipe(str(whole.folder / "recipe.toml")).model == facts.config["recipe"]["model"]


def test_a_run_says_loss_errors_speed_and_time_left(trained):
    line = next(line for line in trained[2].splitlines() if line.startswith("epoch 2/2 batch"))
    assert re.search(r"loss \S+  E \S+ meV/atom  F \S+ meV/Å  S \S+ meV/Å³  \S+ structures/s  0:00:\d\d left", line)


def test_the_teachers_convention_is_found_and_reported(trained):
    report = trained[1].metrics["data"]
    assert report["alignment"]["offsets"]["O"] == pytest.approx(0.5, abs=1e-6)
    assert report["alignment"]["rms_before"] > 0.1
    assert report["alignment"]["rms_after"] < 1e-6
    assert "after alignment" in trained[2]
    assert (report["without_label"]["atomic_energies"], report["hessian_rows"]) == (
        0,
        2 * report["structures"]["train"],
    )


def test_the_student_takes_its_constants_from_the_train_part(trained):
    db, whole, _ = trained
    model, train_ids = load_model(whole.best), db_train_ids(db)
    labels = [label for _, label in db.read(train_ids)]
    structures = db.structures(train_ids)
    config = model.to_config()
    rms = np.sqrt(np.mean(np.concatenate([label.forces.ravel() for label in labels]) ** 2))
    assert config["scale"] == pytest.approx(rms)
    e0 = dict(zip(config["atomic_numbers"], config["e0"], strict=True))
    rest = [
        (label.energy_uncorrected - sum(e0[z] for z in structure.atomic_numbers.tolist())) / len(structure)
        for structure, label in zip(structures, labels, strict=True)
    ]
    assert config["shift"] == pytest.approx(np.mean(rest), abs=1e-9)
    assert config["atomic_numbers"] == [1, 6, 8]


def db_train_ids(db):
    return load(db, "toy").splits["train"].tolist()


def test_without_a_teacher_the_same_command_gives_the_same_numbers(trained, tiny, listener, assert_same_bits):
    db = trained[0]
    runs = [train(db, "toy", recipe=tiny("epochs=1"), reporter=listener) for _ in range(2)]
    assert runs[0].name.startswith("toy-nequix")
    assert runs[0].name != runs[1].name
    assert runs[0].metrics == runs[1].metrics
    assert_same_bits(runs[0].folder, runs[1].folder)


def test_a_loss_that_is_not_a_number_stops_with_ids_and_keeps_the_checkpoint(trained, tiny, listener, monkeypatch):
    db = trained[0]
    prepare, poisoned = Feed.prepare, db_train_ids(db)[3]

    def with_poison(self, planned, *, epoch=0):
        fed = prepare(self, planned, epoch=epoch)
        if epoch == 1 and poisoned in fed.ids:
            graph = fed.batch.graph
            fed.batch.targets.forces[graph.atom_graph == fed.ids.tolist().index(poisoned)] = np.nan
        return fed

    monkeypatch.setattr(Feed, "prepare", with_poison)
    with pytest.raises(TrainError, match=rf"epoch 2, because .* not of structures {poisoned}\. The checkpoint"):
        train(db, "toy", recipe=tiny(), reporter=listener, teacher="pair-potential", name="poisoned")
    facts = find_run(db, "poisoned")
    assert facts.state == "failed"
    assert str(poisoned) in facts.metrics["error"]
    place = last_checkpoint(facts.path)
    document = read_document(place)
    assert document["notes"]["position"]["epoch"] == 1
    assert all(np.isfinite(array).all() for array in read_arrays(place, document, "state").values())


def test_a_validation_that_is_not_a_number_is_never_the_best(trained, tiny, listener, monkeypatch):
    db = trained[0]
    prepare, validated_with = Feed.prepare, load(db, "toy").splits["validation"].tolist()

    def with_poison(self, planned, *, epoch=0):
        fed = prepare(self, planned, epoch=epoch)
        if validated_with[1] in fed.ids:
            graph = fed.batch.graph
            fed.batch.targets.forces[graph.atom_graph == fed.ids.tolist().index(validated_with[1])] = np.nan
        return fed

    monkeypatch.setattr(Feed, "prepare", with_poison)
    with pytest.raises(TrainError, match=rf"in validation, because .* not of structures {validated_with[1]}\. The"):
        train(db, "toy", recipe=tiny(), reporter=listener, teacher="pair-potential", name="unsound-validation")
    facts = find_run(db, "unsound-validation")
    assert (facts.state, facts.metrics.get("epochs")) == ("failed", None)
    position = read_document(last_checkpoint(facts.path))["notes"]["position"]
    assert (position["epoch"], position["best_epoch"]) == (0, None)


def test_energies_of_another_convention_warn_when_they_are_not_aligned(trained, tiny, listener):
    recipe = tiny("distillation.alignment='none'", "epochs=1")
    train(trained[0], "toy", recipe=recipe, reporter=listener, teacher="pair-potential")
    [warning] = [line for line in listener.stream.getvalue().splitlines() if "WARNING: composition explains" in line]
    assert "Leave --align none out" in warning


@pytest.mark.parametrize(
    ("settings", "options", "error", "message"),
    [
        ((), {"teacher": "pair-potentail"}, NotFoundError, "Did you mean 'pair-potential'"),
        (("data.energy='energy_corrected'",), {}, TrainError, "no structure to train on has energy_corrected"),
        (("data.method='toy-dtf'",), {}, NotFoundError, "Did you mean 'toy-dft'"),
        (("model.cutof=3",), {}, ConfigError, "cutof"),
        ((), {"name": "whole"}, TrainError, "--resume whole"),
    ],
)
def test_what_cannot_be_trained_is_an_error_with_the_next_step(
    trained, tiny, listener, settings, options, error, message
):
    with pytest.raises(error, match=message):
        train(trained[0], "toy", recipe=tiny(*settings), reporter=listener, **options)


def test_an_unknown_run_cannot_go_on(trained, listener):
    with pytest.raises(NotFoundError, match="Did you mean 'whole'"):
        resume(trained[0], "whle", reporter=listener)


def test_metrics_are_json(trained):
    assert json.loads(json.dumps(trained[1].metrics, allow_nan=False)) == trained[1].metrics


class Killed(BaseException):
    """Stands for SIGKILL: raised where nothing catches it, so that nothing can note it either."""


def die(*_, **__):
    raise Killed


@pytest.mark.parametrize("moment", ["Path.mkdir", "Path.replace"])
def test_a_run_killed_before_its_recipe_was_written_has_it_when_it_goes_on(
    trained, tiny, listener, monkeypatch, moment
):
    db, whole, _ = trained
    name = f"early-{moment}"
    with monkeypatch.context() as patch:
        patch.setattr(f"pathlib.{moment}", die)
        with pytest.raises(Killed):
            train(db, "toy", recipe=tiny(), reporter=listener, teacher="pair-potential", name=name)
    assert find_run(db, name).state == "running"
    assert not (db.path / "runs" / name / "recipe.toml").exists()
    result = resume(db, name, reporter=listener)
    assert result.metrics == whole.metrics
    assert files(result.folder) == files(whole.folder)
    assert (result.folder / "recipe.toml").read_text() == (whole.folder / "recipe.toml").read_text()


def test_a_run_killed_while_it_removes_its_last_but_one_checkpoint_leaves_nothing_of_it(trained, tiny, listener):
    db = trained[0]
    result = train(db, "toy", recipe=tiny("epochs=1"), reporter=listener, name="untidy")
    expected = files(result.folder)
    shutil.copytree(result.best, result.folder / "checkpoints" / "00000-0000002")
    (result.folder / ".checkpoints.json.1.tmp").write_text("{")
    assert resume(db, "untidy", reporter=listener).metrics == result.metrics
    assert files(result.folder) == expected


def test_within_an_epoch_a_run_does_not_go_on_with_other_devices(trained, tiny, listener):
    db = trained[0]
    result = train(db, "toy", recipe=tiny("epochs=1"), reporter=listener, name="shared")
    file = last_checkpoint(result.folder) / "checkpoint.json"
    document = json.loads(file.read_text())
    assert document["notes"]["devices"] == 1
    document["notes"] |= {"devices": 4, "position": {**document["notes"]["position"], "epoch": 0, "group": 1}}
    file.write_text(json.dumps(document))
    with pytest.raises(TrainError, match=r"within epoch 1, of which 4 device\(s\) .* now there are 1; go on with 4"):
        resume(db, "shared", reporter=listener)


def files(folder):
    """Their names; those of event files hold the second that they were made in."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if "tfevents" not in file.name)


PROGRAM = """
import os, sys, mlipdb
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.progress import PlainReporter
from mlipdb.trainers.runs import run_names
from mlipdb.trainers.train import resume, train

class Ready(PlainReporter):
    def step(self, progress):
        print("ready", flush=True)

db, reporter = mlipdb.open(sys.argv[1]), Ready(sys.stderr)
if "killed" in run_names(db):
    resume(db, "killed", reporter=reporter)
else:
    recipe = load_recipe(sys.argv[2])
    train(db, "toy", recipe=recipe, reporter=reporter, teacher="pair-potential", name="killed")
"""


def test_a_killed_run_goes_on_to_the_same_bits(trained, listener, assert_same_bits):
    db, whole, _ = trained
    command = ["-c", PROGRAM, str(db.path), str(whole.folder / "recipe.toml")]
    for after in (0.0, 0.3):
        run_and_kill(command, after=after, ready="ready")
    assert resume(db, "killed", reporter=listener).metrics == whole.metrics
    assert_same_bits(db.path / "runs" / "killed", whole.folder)
