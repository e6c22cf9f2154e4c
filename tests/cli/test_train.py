import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mlipdb.cli.app import app
from mlipdb.testing.training import SMALLEST, training_database

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return training_database(tmp_path_factory.mktemp("train") / "db", structures=15)


@pytest.fixture
def trained(db, kept, run):
    """What the command printed; trained once, but only where the other fixtures of commands are in force."""
    if "first" not in kept:
        kept["first"] = run(db, "train", "--subset", "toy", *SMALLEST, "--name", "first", "--json")
    return kept["first"]


def test_train_prints_one_json_object_on_stdout_and_talks_on_stderr(trained):
    found = json.loads(trained.stdout)
    assert (found["run"], found["subset"], len(found["epochs"])) == ("first", "toy", 1)
    assert "epoch 1/1" in trained.stderr
    assert "kernel plain: the device is a cpu, not a GPU" in trained.stderr


def test_evaluate_prints_rows_for_the_model_and_for_e0(db, trained, run):
    found = json.loads(run(db, "evaluate", "first", "--subset", "toy", "--split", "test", "--json").stdout)
    assert [(row["split"], row["predicted_by"]) for row in found["rows"]] == [("test", "first"), ("test", "E0 only")]
    text = run(db, "evaluate", "first", "--subset", "toy").stdout
    assert text.splitlines()[0].startswith("split")
    assert "E0 only" in text


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(db, trained, run):
    again = json.loads(run(db, "train", "--resume", "first", "--json").stdout)
    assert again == json.loads(trained.stdout)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--subset", "toy", "--resume", "first"),
        ("--resume", "first", "--set", "epochs=3"),
        ("--resume", "first", "--teacher", "x"),
        ("--resume", "first", "--recipe", "nano"),
        ("--resume", "first", "--accept-labels"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(db, words, run):
    run(db, "train", *words, code=2)


def test_model_align_and_kernel_are_settings_of_their_own(db, run):
    result = run(db, "train", "--subset", "toy", "--model", "nequx", code=1)
    assert "Did you mean 'nequix'" in str(result.exception)
    result = run(db, "train", "--subset", "toy", "--align", "leastsquares", code=1)
    assert "least-squares" in str(result.exception)
    result = run(db, "train", "--subset", "toy", "--model", "painn", "--kernel", "cuequivariance", code=1)
    assert "the kernel cuequivariance is for nequix, not for Painn" in str(result.exception)


def test_help_of_train_and_evaluate_loads_neither_jax_nor_equinox():
    program = (
        "import sys; from typer.testing import CliRunner; from mlipdb.cli.app import app\n"
        "for word in ('train', 'evaluate'): assert CliRunner().invoke(app, [word, '--help']).exit_code == 0\n"
        "assert not {'jax', 'equinox', 'optax'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_report_writes_a_page_into_the_runs_folder_and_prints_where(db, trained, run):
    printed = run(db, "report", "first").stdout.strip()
    assert printed == str(db.path / "runs" / "first" / "report.html")
    found = json.loads(run(db, "report", "first", "--split", "train", "--json").stdout)
    assert (found["part"], found["structures"]) == ("train", found["of"])
    assert {group["name"] for group in found["elements"]} <= {"H", "C", "O"}


def test_checkpoint_show_takes_a_run_or_a_path_and_export_writes_what_it_shows(db, trained, tmp_path, run):
    best = json.loads(trained.stdout)["best_checkpoint"]
    lines = run(db, "checkpoint", "show", "first").stdout
    assert lines == run(db, "checkpoint", "show", best).stdout
    assert "checkpoint of nequix" in lines
    target = tmp_path / "first.nqx"
    assert run(db, "checkpoint", "export", "first", "--to", str(target)).stdout.strip() == str(target)
    shown = json.loads(CliRunner().invoke(app, ["checkpoint", "show", str(target), "--json"]).stdout)
    assert (shown["kind"], shown["parameters"]) == (
        "nqx", json.loads(run(db, "checkpoint", "show", "first", "--json").stdout)["parameters"]
    )  # fmt: skip
    assert "--force" in str(run(db, "checkpoint", "export", "first", "--to", str(target), code=1).exception)
