import json
import re
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import mlipdb
from mlipdb.cli.app import app
from mlipdb.labels import Label, Method
from mlipdb.records import NewStructure
from mlipdb.testing.teachers import crystal, molecule, slab


@pytest.fixture
def filled(tmp_path):
    """A database of a crystal, a molecule and a slab."""
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source("made", reader="none", uri="made in the test")
    method = db.method_id(Method(kind="dft", name="PBE"))
    records = [
        NewStructure(
            structure=structure,
            label=Label(energy_uncorrected=-5.0 * len(structure), forces=np.zeros((len(structure), 3))),
            external_id=str(key),
            material=str(key),
        )
        for key, structure in enumerate([crystal(), molecule(), slab()])
    ]
    db.append(records, source_id=source, method_id=method)
    return db


@pytest.fixture
def run(filled):
    def call(*words, code=0):
        result = CliRunner().invoke(app, ["--db", str(filled.path), "label", *map(str, words)])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return call


def test_label_stores_labels_and_reports_json(run, filled, tiny_nqx):
    words = ("--teacher", "nequix", "--weights", tiny_nqx, "--hessian-rows", 2, "--json")
    report = json.loads(run(*words).stdout)
    assert (report["labelled"], report["already"], report["failed"], report["rows"]) == (3, 0, 0, 6)
    assert report["method"]["dtype"] == "float32"
    assert report["comparison"]["structures"] == 3
    taught = next(label for label in filled.labels(1) if label.method.kind == "teacher")
    assert taught.hessian_rows.shape == (2, 2, 3)
    assert json.loads(run(*words).stdout)["already"] == 3


def test_a_subset_limits_what_is_labelled(run, filled, tiny_nqx):
    result = run("--teacher", "nequix", "--weights", tiny_nqx, "--subset", "nelements=1", "--hessian-rows", "all")
    assert "labelled    1 of 1" in result.stdout
    assert "rows        6 Hessian rows" in result.stdout
    assert re.search(
        r"check       beside the labels that came with 1 structures, MAE: energy as stored \S+ eV/atom;", result.stdout
    )
    assert [len(filled.labels(key)) for key in (1, 2, 3)] == [1, 1, 2]


def test_progress_goes_to_stderr(run, tiny_nqx):
    result = run("--teacher", "nequix", "--weights", tiny_nqx)
    assert "3/3 structures" in result.stderr
    assert "3/3 structures" not in result.stdout


@pytest.mark.parametrize("rows", ["-1", "some", "1.5"])
def test_a_number_of_rows_that_makes_no_sense_is_a_usage_error(run, rows):
    boxed = run("--teacher", "nequix", "--hessian-rows", rows, code=2).stderr
    assert "neither a number from 0 up nor 'all'" in " ".join(boxed.replace("│", " ").split())


def test_a_teacher_whose_package_is_missing_is_an_error_that_names_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "mlipdb.teachers.mace", raising=False)
    assert "mlipdb[mace]" in str(run("--teacher", "mace-mp", code=1).exception)


def test_other_weights_are_pointed_out(run, tiny_nqx, tmp_path):
    changed = tmp_path / "changed.nqx"
    changed.write_bytes(tiny_nqx.read_bytes() + b"\n")
    run("--teacher", "nequix", "--weights", tiny_nqx)
    assert "is another method" in run("--teacher", "nequix", "--weights", changed).stdout
