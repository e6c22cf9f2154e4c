"""Rates and weights that change along a run, and a run that goes on with them."""

from dataclasses import replace

import numpy as np
import pytest

import mlipdb
from mlipdb.records import NewLabel
from mlipdb.subsets.subset import load
from mlipdb.testing.training import Stopper, training_database
from mlipdb.trainers.archive import read_arrays, read_document
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.pace import make_pace
from mlipdb.trainers.run_files import last_checkpoint
from mlipdb.trainers.teacher_forces import teacher_forces_mae
from mlipdb.trainers.train import resume, train

pytestmark = pytest.mark.usefixtures("quick_programs")

ERROR = 0.5  # eV/Å that every force component of the poor teacher is off by


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """The training database with another teacher, whose forces are off by ERROR."""
    db = training_database(tmp_path_factory.mktemp("pace") / "db", structures=15)
    good = next(number for number, method in db.methods().items() if method.kind == "teacher")
    poor = db.method_id(mlipdb.Method(kind="teacher", name="poor", e0_convention="e0 included"))
    ids = load(db, "toy").ids
    labels = [
        replace(label, forces=label.forces + ERROR, method=None, method_id=None)
        for _, label in db.read(ids, method_id=good)
    ]
    new = [NewLabel(structure_id=int(i), part=0, label=label) for i, label in zip(ids, labels, strict=True)]
    db.append_labels(new, method_id=poor)
    yield db
    db.close()


def history(*errors):
    return [{"train": {"forces_mae": 1.0}, "validation": {"forces_mae": error}} for error in errors]


def pace_of(recipe, *errors, validates=True, teacher=20.0):
    weights = {"forces_l2": 100.0, "hessian_rows": 200.0}
    return make_pace(recipe, weights, history=history(*errors), epoch=len(errors), validates=validates, teacher=teacher)


def test_the_hessian_weight_is_halved_once_when_the_student_is_near_the_teacher(tiny):
    recipe = tiny("distillation.hessian_halving=1.05")
    assert pace_of(recipe, 30.0, 21.1).weights == {"forces_l2": 100.0, "hessian_rows": 200.0}
    assert pace_of(recipe, 30.0, 20.9, 30.0, 19.0).weights == {"forces_l2": 100.0, "hessian_rows": 100.0}
    assert pace_of(tiny(), 1.0).weights["hessian_rows"] == 200.0
    said = pace_of(recipe, 30.0).changes(pace_of(recipe, 30.0, 20.0))
    assert said == ["force error near the teacher's: weight of hessian_rows halved to 100"]


def test_without_a_validation_part_the_training_errors_are_watched(tiny):
    assert list(pace_of(tiny(), 30.0, 20.0, validates=False).errors) == [1.0, 1.0]


def test_the_teachers_error_is_that_of_its_force_components(db):
    ids = load(db, "toy").splits["validation"]
    found = {m.name: teacher_forces_mae(db, ids, teacher_id=n, method_id=None) for n, m in db.methods().items()}
    assert found["poor"] == pytest.approx(1e3 * ERROR)
    assert found["pair-potential"] == 0.0
    assert teacher_forces_mae(db, ids[:0], teacher_id=1, method_id=None) is None


SETTINGS = (
    "epochs=4",
    "optimizer.name=adamw",
    "optimizer.amsgrad=true",
    "optimizer.schedule=plateau",
    "optimizer.plateau_patience=0",
    "optimizer.plateau_factor=0.5",
    "optimizer.warmup_epochs=0",
    "optimizer.learning_rate=1e-6",  # so small that no epoch's error is lower than the one before
    "optimizer.final_learning_rate=0.0",
    "loss_schedule.energy_mae=[[1, 1.0], [2, 3.0]]",
    "distillation.hessian_halving=100.0",
)


def test_an_interrupted_run_goes_on_with_its_plateau_and_its_halved_weight(db, tiny, listener):
    options = {"teacher": "poor", "accept_labels": True}
    whole = train(db, "toy", recipe=tiny(*SETTINGS), reporter=listener, name="whole", **options)
    epochs = whole.metrics["epochs"]
    said = listener.stream.getvalue()
    assert [epoch["learning_rate"] for epoch in epochs] == [1e-6, 1e-6, 0.5e-6, 0.25e-6]
    assert "force error on a plateau: learning rate 1e-06 -> 5e-07" in said
    assert [epoch["weights"]["energy_mae"] for epoch in epochs] == [20.0, 20.0, 60.0, 60.0]
    assert [epoch["weights"]["hessian_rows"] for epoch in epochs] == [2.0, 1.0, 1.0, 1.0]
    assert "halved to 1" in said
    assert whole.metrics["data"]["teacher_forces_mae"] == pytest.approx(1e3 * ERROR)
    with pytest.raises(KeyboardInterrupt):
        train(db, "toy", recipe=tiny(*SETTINGS), reporter=Stopper(8), name="stopped", **options)
    again = resume(db, "stopped", reporter=listener)
    assert again.metrics == whole.metrics
    one, other = (arrays(result.folder) for result in (again, whole))
    assert all(np.array_equal(one[name], other[name]) for name in one | other)


def arrays(folder):
    place = last_checkpoint(folder)
    return read_arrays(place, read_document(place), "state")


SMALL_PAINN = ("model.n_layers=1", "model.hidden_size=4", "model.n_radial=4", "model.cutoff=3.0", "data.threads=1")


def test_the_papers_recipe_trains_its_direct_student(db, listener):
    recipe = load_recipe("joint/painn", settings=[*SMALL_PAINN, "epochs=2", "batch.graphs=4"])
    result = train(db, "toy", recipe=recipe, reporter=listener, teacher="poor", name="paper", accept_labels=True)
    weights = [epoch["weights"] for epoch in result.metrics["epochs"]]
    assert weights[0] == {"energy_mae": 5.0, "forces_l2": 100.0, "atomic_energies_mae": 10.0, "hessian_rows": 200.0}
    assert "teacher: forces differ from the labels by 500.0 meV/Å" in listener.stream.getvalue()
    assert (
        result.metrics["epochs"][1]["validation"]["forces_mae"]
        < result.metrics["epochs"][0]["validation"]["forces_mae"]
    )
