import json
import subprocess
import sys

import pytest

from mlipdb.subsets.subset import freeze
from mlipdb.testing.training import SMALLEST, training_database

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_programs")]

TUNED = ("finetune", "--from", "base", "--subset", "target", "--set", "epochs=1")


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    db = training_database(tmp_path_factory.mktemp("finetune") / "db", structures=27)
    freeze(db, "target", filter='elements HAS ALL "H","O"', fractions=(60, 40, 0), seed=0)
    return db


@pytest.fixture
def tuned(db, kept, run):
    """What the command printed; made once, but only where the other fixtures of commands are in force."""
    if "tuned" not in kept:
        run(db, "train", "--subset", "toy", *SMALLEST, "--name", "base")
        replay = ("--replay", 'elements HAS "C"', "--replay-size", "6", "--replay-weight", "0.5", "--head", "water")
        options = ("--strategy", "replay", *replay, "--e0", "reestimate", "--name", "tuned", "--json")
        kept["tuned"] = run(db, *TUNED, *options)
    return kept["tuned"]


def test_finetune_prints_one_json_object_on_stdout_and_talks_on_stderr(tuned):
    found = json.loads(tuned.stdout)
    assert (found["run"], found["subset"], len(found["epochs"])) == ("tuned", "target", 1)
    assert found["data"]["e0"]["mode"] == "reestimate"
    assert sum(found["data"]["replay"]["structures"].values()) == 6
    assert "before the first step" in tuned.stderr
    assert "E0 (reestimate)" in tuned.stderr


def test_runs_show_says_what_a_fine_tuning_started_from(db, tuned, run):
    text = run(db, "runs", "show", "tuned").stdout
    facts = ("fine-tuning        replay", "base, weights ", "of run             base", "replay-6-random")
    for words in (*facts, "E0                 reestimate, 2 offsets of rank 1"):
        assert words in text
    assert "weight 0.5" in text


def test_both_heads_can_be_evaluated_by_name(db, tuned, run):
    for name in ("tuned", "tuned@water", "tuned@foundation"):
        rows = json.loads(run(db, "evaluate", name, "--subset", "target", "--split", "train", "--json").stdout)["rows"]
        assert rows[0]["predicted_by"] == name


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(db, tuned, run):
    assert json.loads(run(db, "finetune", "--resume", "tuned", "--json").stdout) == json.loads(tuned.stdout)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--from", "base"),
        ("--subset", "target"),
        ("--from", "base", "--subset", "target", "--resume", "tuned"),
        ("--resume", "tuned", "--e0", "fit"),
        ("--resume", "tuned", "--replay-size", "5"),
        ("--from", "base", "--subset", "target", "--replay-size", "5"),
        ("--from", "base", "--subset", "target", "--replay-weight", "2"),
        ("--from", "base", "--subset", "target", "--replay-elements", "within"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(db, words, run):
    run(db, "finetune", *words, code=2)


def test_what_is_misspelt_is_suggested(db, tuned, run):
    result = run(db, *TUNED, "--strategy", "replai", code=1)
    assert "Did you mean 'replay'" in str(result.exception)
    result = run(db, "finetune", "--from", "bass", "--subset", "target", code=1)
    assert "Did you mean 'base'" in str(result.exception)


def test_help_of_finetune_loads_neither_jax_nor_equinox():
    program = (
        "import sys; from typer.testing import CliRunner; from mlipdb.cli.app import app\n"
        "assert CliRunner().invoke(app, ['finetune', '--help']).exit_code == 0\n"
        "assert not {'jax', 'equinox', 'optax'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
