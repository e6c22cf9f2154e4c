"""`mlipdb label` with a forecast, with workers, and for labels to train on."""

import json

import pytest
from typer.testing import CliRunner

import mlipdb
from mlipdb.cli.app import app
from mlipdb.records import NewStructure
from mlipdb.testing.teachers import crystal, molecule

TEACHER = ("--teacher", "ase:ase.calculators.lj.LennardJones")


@pytest.fixture
def db(tmp_path):
    """A database of a crystal and a molecule."""
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source("made", reader="none", uri="made in the test")
    structures = enumerate([crystal(), molecule()])
    db.append(
        [NewStructure(structure=one, label=None, external_id=str(key), material=str(key)) for key, one in structures],
        source_id=source,
    )
    return db


def run(db, *words):
    result = CliRunner().invoke(app, ["--db", str(db.path), "label", *TEACHER, *words])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_a_dry_run_says_what_is_to_do_and_stores_nothing(db):
    text = run(db, "--dry-run", "--hessian-rows", "2")
    assert "to label    2 structures, 4 Hessian rows" in text
    assert "nothing was stored" in text
    assert db.methods() == {}
    found = json.loads(run(db, "--dry-run", "--json"))
    assert (found["structures"], found["probed"], found["failed"]) == (2, 2, 0)


def test_labels_to_train_on_come_with_the_setting_that_trains_on_them(db):
    text = run(db, "--pseudo")
    assert "labelled    2 of 2" in text
    assert "--set data.method=1" in text


def test_workers_are_asked_by_name(db):
    report = json.loads(run(db, "--executor", "processes:1", "--json"))
    assert (report["labelled"], report["failed"], report["method"]["name"]) == (2, 0, TEACHER[1])
    assert [len(db.labels(key)) for key in (1, 2)] == [1, 1]
