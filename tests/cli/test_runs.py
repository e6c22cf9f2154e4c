import json

import pytest
from typer.testing import CliRunner

from mlipdb.cli.app import app
from mlipdb.subsets import subset as subsets
from mlipdb.testing.training import training_database
from mlipdb.trainers.recipe import OptimizerRecipe, Recipe
from mlipdb.trainers.runs import start_run, update_run
from mlipdb.trainers.settings import to_mapping


def entry(epoch, forces):
    errors = {"loss": 0.1 * forces, "energy_mae": 5.0, "forces_mae": forces, "stress_mae": None}
    return {"epoch": epoch, "train": errors, "validation": errors}


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """Two trainings that differ in their learning rate, the second one failed, and an evaluation of the first."""
    db = training_database(tmp_path_factory.mktemp("runs") / "db", structures=9)
    toy = subsets.load(db, "toy")
    methods = {"teacher": 2, "label": "source", "energy": "energy_uncorrected"}
    for name, rate in (("slow", 0.001), ("fast", 0.01)):
        recipe = to_mapping(Recipe(epochs=2, optimizer=OptimizerRecipe(learning_rate=rate)))
        start_run(db, name, kind="train", config={"recipe": recipe, "subset": "toy"}, subset=toy, methods=methods)
    data = {"alignment": {"rms_before": 0.25, "rms_after": 0.001}}
    metrics = {"data": data, "best": {"epoch": 1, "loss": 2.0}, "epochs": [entry(1, 20.0), entry(2, 30.0)]}
    update_run(db, "slow", state="finished", metrics=metrics)
    update_run(db, "fast", state="failed", metrics={"error": "loss nan is not finite"})
    start_run(db, "slow-on-toy", kind="evaluate", config={}, subset=toy, methods={}, parent="slow")
    row = {"energy_mae": 1.0, "energy_rmse": 2.0, "forces_mae": 25.0, "forces_rmse": 26.0}
    row |= {"split": "test", "structures": 3, "stress_mae": None, "stress_rmse": None}
    rows = [{**row, "predicted_by": "slow"}, {**row, "predicted_by": "E0 only", "forces_mae": 900.0}]
    update_run(db, "slow-on-toy", state="finished", metrics={"rows": rows})
    yield db
    db.close()


@pytest.fixture
def runs(db):
    def invoke(*words, code=0):
        result = CliRunner().invoke(app, ["--db", str(db.path), "runs", *words])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return invoke


def test_list_shows_the_errors_of_the_epoch_that_is_used(runs):
    lines = runs("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "slow", "fast", "slow-on-toy"]
    assert lines[1].split()[1:9] == ["train", "finished", "nequix", "toy", "2/2", "5.0", "20.0", "-"]
    assert [row["name"] for row in json.loads(runs("list", "--json", "--kind", "evaluate").stdout)["runs"]] == [
        "slow-on-toy"
    ]


def test_show_tells_what_went_in_and_what_came_out(runs):
    text = runs("show", "slow").stdout
    for words in ("toy, hash", "teacher            2", "250.0 meV/atom rms from the labels, 1.0 after", "test"):
        assert words in text, (words, text)
    assert "900.0" not in text
    found = json.loads(runs("show", "slow", "--json").stdout)
    assert found["evaluations"]["test"]["forces_mae"] == 25.0
    assert found["versions"]["jax"]


def test_show_of_a_failed_run_says_why_and_of_an_evaluation_what_it_found(runs):
    assert "loss nan is not finite" in runs("show", "fast").stdout
    text = runs("show", "slow-on-toy").stdout
    assert "test, E0 only" in text
    assert "900.0" in text


def test_compare_shows_the_settings_that_differ_and_the_errors_side_by_side(runs):
    lines = [line.split() for line in runs("compare", "slow", "fast").stdout.splitlines()]
    assert lines[0] == ["slow", "fast"]
    assert lines[1] == ["optimizer.learning_rate", "0.001", "0.01"]
    assert ["test:", "forces", "mae", "25.00", "-"] in lines
    assert ["validation:", "forces", "mae", "20.00", "-"] in lines
    assert not any(line[0] == "epochs" for line in lines)


def test_an_unknown_run_and_an_evaluation_are_refused_with_what_to_give(runs):
    assert "Did you mean 'slow'" in str(runs("show", "slwo", code=1).exception)
    assert "Give 'slow'" in str(runs("compare", "slow", "slow-on-toy", code=1).exception)


def test_a_database_without_runs_says_so(tmp_path):
    training_database(tmp_path / "empty", structures=3).close()
    assert CliRunner().invoke(app, ["--db", str(tmp_path / "empty"), "runs", "list"]).stdout == "no runs\n"
