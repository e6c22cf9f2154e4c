import json
from contextlib import closing

import ase.io
import pytest
import typer
import typer.core
from typer.testing import CliRunner

import mlipdb
from mlipdb.cli.app import app
from mlipdb.subsets import load


@pytest.fixture(autouse=True)
def contexts_are_what_typer_says_they_are(monkeypatch):
    """Typer declares typer.Context and hands over its base class, which the shape checker refuses; so make it true."""
    for command in (typer.core.TyperCommand, typer.core.TyperGroup):
        monkeypatch.setattr(command, "context_class", typer.Context)


@pytest.fixture
def run(db):
    def call(*words, database=db.path):
        return CliRunner().invoke(app, ["--db", str(database), *map(str, words)], catch_exceptions=False)

    return call


def test_export_writes_the_file_and_says_what_is_in_it(run, tmp_path):
    result = run("export", "extxyz", "Y", "--to", tmp_path / "y.extxyz", "--method", "PBE/VASP")
    assert result.exit_code == 0
    assert len(ase.io.read(tmp_path / "y.extxyz", ":")) == 7
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{tmp_path / 'y.extxyz'}: 7 structures, ")
    assert first.endswith("; PBE/VASP; energy is energy_uncorrected")
    assert second == "  beside it: y.extxyz.about.json"


def test_export_says_on_stderr_what_is_lost(run, tmp_path):
    result = run("export", "mace-hdf5", "all", "--to", tmp_path / "all.h5")
    assert "lost: magmoms of 5 structures: MACE's HDF5 has no place for it" in result.stderr
    assert "lost" not in result.stdout


def test_export_in_json_has_a_report_for_each_part(run, db, tmp_path):
    result = run("export", "aselmdb", "everything", "--to", tmp_path / "set", "--split", "--json")
    answer = json.loads(result.stdout)
    parts = load(db, "everything").splits
    assert {file["part"]: file["written"] for file in answer["files"]} == {p: len(ids) for p, ids in parts.items()}
    assert answer["files"][0]["energy"] == "energy_uncorrected"
    assert answer["files"][0]["path"] == str(tmp_path / "set" / "train")


def test_an_unknown_format_names_the_known_ones(run, tmp_path):
    with pytest.raises(mlipdb.MlipdbError, match=r"exporter 'extxzy' is unknown\. Did you mean 'extxyz'\?"):
        run("export", "extxzy", "all", "--to", tmp_path / "x")


def test_a_bundle_goes_from_one_database_to_another(run, db, tmp_path):
    made = run("bundle", "make", "everything", "--to", tmp_path / "all.mlipdb", "--json")
    assert json.loads(made.stdout)["structures"] == 35
    taken = run("bundle", "take", tmp_path / "all.mlipdb", database=tmp_path / "new")
    assert taken.stdout.splitlines()[0] == f"{tmp_path / 'all.mlipdb'}: 35 structures taken, 0 were here"
    with closing(mlipdb.open(tmp_path / "new")) as new:
        assert load(new, "everything").hash == load(db, "everything").hash
    again = run("bundle", "take", tmp_path / "all.mlipdb", "--json", database=tmp_path / "new")
    assert json.loads(again.stdout)["structures_known"] == 35


def test_a_damaged_bundle_makes_no_database(run, tmp_path):
    run("bundle", "make", "everything", "--to", tmp_path / "all.mlipdb")
    data = bytearray((tmp_path / "all.mlipdb").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "all.mlipdb").write_bytes(data)
    with pytest.raises(mlipdb.MlipdbError, match="is damaged: SHA-256"):
        run("bundle", "take", tmp_path / "all.mlipdb", database=tmp_path / "new")
    assert not (tmp_path / "new").exists()
