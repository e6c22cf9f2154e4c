import json

import pytest
from typer.testing import CliRunner

import mlipdb
from mlipdb.cli.app import app
from mlipdb.labels import Method
from mlipdb.records import NewLabel
from mlipdb.testing.samples import harmonic_label, sample_records


@pytest.fixture
def database(tmp_path):
    """60 rock salts; a teacher labelled 20 of them."""
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source("sample", reader="none", uri="nowhere")
    ids = db.append(sample_records(60), source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE")))
    taught = [NewLabel(structure_id=i, part=0, label=harmonic_label(db.structure(i), seed=i)) for i in ids[:20]]
    db.append_labels(taught, method_id=db.method_id(Method(kind="teacher", name="toy")))
    yield db
    db.close()


@pytest.fixture
def stats(database):
    return lambda *words: CliRunner().invoke(app, ["--db", str(database.path), "stats", *map(str, words)])


def test_the_text_fits_eighty_columns_and_is_plain_in_a_pipe(stats):
    shown = stats("--parity", "PBE", "toy").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown
    for words in ("60 structures match 'all'", "Fm-3m (225)", "labels by toy (method 2, teacher)", "33.3%", "MAE"):
        assert words in shown, words


def test_json_is_one_object_with_every_number(stats):
    found = json.loads(stats("Y", "--json", "--parity", 1, 2).stdout)
    assert (found["filter"], found["structures"], found["crystal_systems"]["cubic"]) == ("Y", 12, 12)
    assert found["methods"][0]["quantities"]["forces"] == 12
    assert found["parity"]["errors"]["energy per atom"]["unit"] == "eV/atom"


def test_the_page_is_written_beside_the_text(stats, tmp_path):
    result = stats("--html", tmp_path / "page.html", "--parity", 1, 2, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["structures"] == 60
    assert "page.html" in result.stderr
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_an_empty_database_has_numbers_too(tmp_path):
    mlipdb.create(tmp_path / "empty").close()
    result = CliRunner().invoke(app, ["--db", str(tmp_path / "empty"), "stats"])
    assert result.exit_code == 0, result.output
    assert "0 structures match" in result.stdout
