"""Databases that earlier releases wrote open, upgrade, and answer as they did."""

import shutil
from pathlib import Path

import pytest

import mlipdb
from mlipdb.catalog.facets import shards_without_facets, wrong_facets
from mlipdb.catalog.schema import upgrade_directory
from mlipdb.query import count_structures
from mlipdb.subsets.subset import load
from mlipdb.testing.samples import harmonic_label, sample_records

KEPT = sorted((Path(__file__).parent / "data").glob("database_v*"))


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def kept(request, tmp_path):
    shutil.copytree(request.param, tmp_path / "db")
    upgrade_directory(tmp_path / "db").dispose()
    db = mlipdb.open(tmp_path / "db")
    yield db
    db.close()


def test_at_least_one_database_is_kept():
    assert KEPT


def test_every_record_decodes_and_every_hash_fits(kept):
    report = kept.verify(deep=True)
    assert report.ok, report.problems
    assert report.records == 8


def test_structures_and_both_labels_are_what_was_stored(kept):
    for identity, record in enumerate(sample_records(4), start=1):
        assert kept.structure(identity).content_hash == record.structure.content_hash
        source, teacher = kept.labels(identity)
        assert source.forces.tobytes() == record.label.forces.tobytes()
        assert source.energy_uncorrected == record.label.energy_uncorrected
        assert teacher.stress.tobytes() == harmonic_label(record.structure, seed=100 + identity).stress.tobytes()
        assert (source.method.kind, teacher.method.name) == ("dft", "kept-teacher")


def test_an_upgrade_makes_the_facets_that_an_append_would_have_written(kept):
    with kept.session() as session:
        assert count_structures(session, "Li AND Fm-3m") == 3
        assert session.scalars(shards_without_facets()).all() == []
        assert wrong_facets(session) == {}


def test_the_same_query_has_the_same_answer(kept):
    assert kept.query("Li AND Fm-3m").ids.tolist() == [1, 2, 3]
    assert kept.query("kept-subset").ids.tolist() == [1, 2, 3]
    assert load(kept, "kept-subset").hash == "19de708e21df61b14071ac8c95d9d84d067a0597db6e7fa365450d0aeef7d474"
