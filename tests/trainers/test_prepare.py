"""What is said of the data before a training."""

import pytest

import mlipdb
from mlipdb.structures import SYMBOLS
from mlipdb.subsets.subset import freeze
from mlipdb.testing.samples import sample_records
from mlipdb.trainers.prepare import prepare


@pytest.fixture
def salts(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source("salts", reader="none", uri="nowhere")
    method = db.method_id(mlipdb.Method(kind="dft", name="PBE"))
    db.append(sample_records(12, per_material=1), source_id=source, method_id=method)
    yield db
    db.close()


def elements(db, ids):
    return {SYMBOLS[number] for structure in db.structures(ids) for number in structure.composition}


@pytest.mark.parametrize("seed", range(3))
def test_elements_that_only_held_out_structures_have_are_named(salts, tiny, seed):
    frozen = freeze(salts, f"all-{seed}", filter="all", fractions=(50, 25, 25), seed=seed)
    unseen = elements(salts, frozen.ids) - elements(salts, frozen.splits["train"])
    said = []
    report = prepare(salts, frozen, recipe=tiny(), teacher_id=None, devices=1, say=said.append).report
    assert set(report["elements_not_in_train"]) == unseen
    warnings = [line for line in said if line.startswith("WARNING") and "no structure to train on" in line]
    assert len(warnings) == (1 if unseen else 0)
    assert all(symbol in warnings[0] for symbol in unseen)
