import json

import pytest
from typer.testing import CliRunner

import mlipdb
from mlipdb.cli.app import app
from mlipdb.labels import Method
from mlipdb.testing.samples import sample_records


@pytest.fixture
def mlip(tmp_path):
    """Runs a command on a database of 30 rock salts of ten materials."""
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source("sample", reader="none", uri="nowhere")
    db.append(sample_records(30), source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE")))
    db.close()
    return lambda *words: CliRunner().invoke(app, ["--db", str(tmp_path / "db"), *words])


def test_what_two_filters_share_is_counted_in_json(mlip):
    found = json.loads(mlip("leakage", "id<=10", "id>10", "--workers", "0", "--json").stdout)
    overlap = found["overlaps"][0]
    assert (overlap["first_size"], overlap["second_size"]) == (10, 20)
    material = overlap["shared"][0]
    # frames 10 and 11, 12 are of material 3
    assert (material["measure"], material["keys"], material["first"], material["second"]) == ("material", 1, 1, 2)


def test_the_exit_code_tells_a_script_of_a_leak(mlip):
    both = ("leakage", "id<=10", "id>10", "--by", "material")
    assert mlip(*both).exit_code == 0
    assert mlip(*both, "--strict").exit_code == 1
    assert mlip(*both, "--fail-above", "9").exit_code == 1  # 2 of 20 frames
    assert mlip(*both, "--fail-above", "10").exit_code == 0
    assert mlip("leakage", "id<=9", "id>9", "--by", "material", "--strict").exit_code == 0


def test_the_text_names_shared_materials(mlip):
    assert "material-3 (10, 11)" in mlip("leakage", "id<=10", "id>10", "--by", "material").stdout


def test_fingerprints_are_worked_out_for_a_filter(mlip):
    assert json.loads(mlip("fingerprint", "id<=10", "--workers", "0", "--json").stdout)["computed"] == 10
    done = mlip("fingerprint", "--workers", "0")
    assert done.stdout.startswith("30 structures: 20 fingerprints computed")
    assert "moyopy" in done.stdout
