import json

import pytest
from typer.testing import CliRunner

import mlipdb
from mlipdb.cli.app import app
from mlipdb.errors import NotFoundError
from mlipdb.labels import Method
from mlipdb.records import NewLabel
from mlipdb.subsets import freeze
from mlipdb.testing.samples import harmonic_label, sample_records


@pytest.fixture
def database(tmp_path):
    """Six rock salts of two materials; a teacher labelled the first; the subset `some` holds all."""
    db = mlipdb.create(tmp_path / "db")
    facts = {"licence": "CC-BY-4.0", "sha256": "a" * 64}
    source = db.open_source("sample", reader="none", uri="made.json", options={"files": {}}, **facts)
    ids = db.append(sample_records(6), source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE")))
    db.close_source(source, state="complete")
    teacher = db.method_id(Method(kind="teacher", name="toy", weights_sha256="b" * 64, package_version="1.2"))
    label = harmonic_label(db.structure(1), seed=9)
    db.append_labels([NewLabel(structure_id=ids[0], part=0, label=label)], method_id=teacher)
    freeze(db, "some", filter="all")
    yield db
    db.close()


@pytest.fixture
def show(database):
    return lambda *words: CliRunner().invoke(app, ["--db", str(database.path), "show", *words])


def test_the_text_answers_where_it_came_from_and_who_labelled_it(show):
    result = show("1")
    assert result.exit_code == 0, result.output
    for words in ("source sample", "CC-BY-4.0", "a" * 64, "label by toy (method 2)", "b" * 64, "1.2", "2 others: 2 (",
                  "some (", "shards/structures-", "nothing that is known here"):  # fmt: skip
        assert words in result.stdout, words


def test_the_id_of_the_source_will_do(show):
    assert json.loads(show("frame-4", "--json").stdout)["id"] == 5


def test_json_has_the_facts_the_arrays_and_the_history(show, database):
    found = json.loads(show("1", "--json").stdout)
    assert found["positions"] == database.structure(1).positions.tolist()
    assert [label["method"]["name"] for label in found["labels"]] == ["PBE", "toy"]
    assert [label["forces"] for label in found["labels"]] == [label.forces.tolist() for label in database.labels(1)]
    assert found["source_file"]["licence"] == "CC-BY-4.0"
    assert [part["method"] for part in found["label_parts"]] == ["PBE", "toy"]
    assert found["memberships"][0]["subset"] == "some"
    assert (found["doubts"], found["fault"]) == ([], None)
    assert all(len(shard["sha256"]) == 64 for shard in found["shards"])


def test_what_the_catalog_knows_is_shown_although_the_shard_is_damaged(show, database):
    path = database.path / database.entry(1).shard
    database.close()
    path.unlink()
    result = show("1")
    assert result.exit_code == 1
    assert "source sample" in result.stdout
    assert "cannot be opened" in result.stdout
    assert json.loads(show("1", "--json").stdout)["fault"]


def test_an_unknown_id_is_an_error_that_says_how_to_search(show):
    result = show("nothing")
    assert isinstance(result.exception, NotFoundError)
    assert "mlipdb query" in str(result.exception)
