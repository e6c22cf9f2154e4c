"""What is listed, and what is left after labels are dropped."""

import numpy as np
import pytest

import mlipdb
from mlipdb.errors import ConfigError, NotFoundError
from mlipdb.labelling import label
from mlipdb.labelling.holdings import drop_labels, list_holdings, show_holding
from mlipdb.repair import repair
from mlipdb.stats import statistics
from mlipdb.testing.potential import PairPotential

COVERED = frozenset({1, 6, 8})  # not silicon


@pytest.fixture
def labelled(db, ids):
    """Forty structures; a teacher that does not cover silicon labelled them with two rows."""
    label(db, PairPotential(elements=COVERED), ids=ids, hessian_rows=2)
    return db


@pytest.fixture
def covered(labelled):
    return sum(14 not in structure.atomic_numbers for structure in labelled.structures(range(1, 41)))


def test_the_list_counts_structures_failures_and_rows_of_each_method(labelled, covered):
    source, teacher = list_holdings(labelled)
    assert (source.method.name, source.structures, source.with_structures) == ("PBE", 40, True)
    assert (source.shards, source.bytes) == (0, 0)
    assert 0 < covered < 40
    assert (teacher.structures, teacher.failed) == (covered, 40 - covered)
    assert (teacher.hessian_rows, teacher.with_rows) == (2 * covered, covered)
    [shard] = (labelled.path / "shards").glob("labels-*")
    assert (teacher.with_structures, teacher.shards, teacher.bytes) == (False, 1, shard.stat().st_size)


def test_parts_that_were_added_later_count_as_rows_and_not_as_structures(labelled, ids, covered):
    label(labelled, PairPotential(elements=COVERED), ids=ids, hessian_rows=3)
    teacher = list_holdings(labelled)[1]
    assert (teacher.structures, teacher.hessian_rows, teacher.with_rows) == (covered, 3 * covered, covered)


def test_details_name_the_quantities_and_why_structures_failed(labelled, covered):
    found = show_holding(labelled, "pair-potential")
    periodic = sum(
        all(structure.pbc) and 14 not in structure.atomic_numbers for structure in labelled.structures(range(1, 41))
    )
    assert found.quantities == {
        "energy_uncorrected": covered,
        "forces": covered,
        "stress": periodic,
        "atomic_energies": covered,
    }
    assert found.reasons == (("pair-potential does not cover Si", 40 - covered),)
    assert found.runs == ()


def test_dropped_labels_are_gone_from_rows_counts_and_reads(labelled, ids, covered):
    dropped = drop_labels(labelled, "pair-potential")
    assert (dropped.rows, dropped.failed, dropped.shards) == (40, 40 - covered, 1)
    assert [holding.method.name for holding in list_holdings(labelled)] == ["PBE"]
    assert all(taught is None for _, taught in labelled.read(ids, method_id=2))
    assert [found.name for found in statistics(labelled).methods] == ["PBE"]
    assert show_holding(labelled, "pair-potential").holding.structures == 0


def test_gc_removes_the_files_of_dropped_labels_and_verify_is_content(labelled):
    drop_labels(labelled, "pair-potential")
    assert len(labelled.verify().orphans) == 1
    assert len(labelled.gc().removed) == 1
    report = labelled.verify(deep=True)
    assert (report.problems, report.orphans) == ((), ())


@pytest.mark.sqlite
def test_repair_does_not_bring_dropped_labels_back(labelled):
    drop_labels(labelled, "pair-potential")
    labelled.close()
    assert repair(labelled.path).labels == 0
    assert [holding.method.name for holding in list_holdings(mlipdb.open(labelled.path))] == ["PBE"]


@pytest.mark.parametrize("collected", [False, True])
def test_the_same_labels_can_be_made_again_after_a_drop(labelled, ids, covered, collected):
    drop_labels(labelled, "pair-potential")
    if collected:
        labelled.gc()
    label(labelled, PairPotential(elements=COVERED), ids=ids, hessian_rows=2)
    assert list_holdings(labelled)[1].structures == covered
    assert labelled.verify(deep=True).problems == ()


def test_a_reader_that_holds_dropped_labels_open_does_not_take_them_for_new_ones(labelled, ids):
    reader = mlipdb.open(labelled.path)
    place = next(key for key in ids.tolist() if len(reader.labels(key)) == 2)
    old = reader.labels(place)[1].energy_uncorrected
    drop_labels(labelled, "pair-potential")
    other = PairPotential(elements=COVERED, cutoff=3.0, strength=-0.2)
    report = label(labelled, other, ids=ids)
    structure, fresh = next(iter(reader.read([place], method_id=report.method_id)))
    expected = other._label(structure, rows=np.zeros(0, np.int32), base=True).energy_uncorrected
    assert fresh.energy_uncorrected == pytest.approx(expected)
    assert expected != pytest.approx(old)


def test_labels_that_came_with_structures_are_not_dropped(labelled):
    with pytest.raises(ConfigError, match="40 labels of method 'PBE' came with the structures"):
        drop_labels(labelled, "PBE")
    assert list_holdings(labelled)[0].structures == 40


def test_a_method_that_is_not_there_is_an_error_with_those_that_are(labelled):
    with pytest.raises(NotFoundError, match="pair-potential"):
        drop_labels(labelled, "pair-potentail")
