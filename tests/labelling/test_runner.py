from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import func, select

import mlipdb
from mlipdb.catalog import LabelRow
from mlipdb.errors import LabelError, NotFoundError
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labelling.options import Flush, LabelOptions
from mlipdb.labelling.rows import row_order
from mlipdb.labelling.runner import label
from mlipdb.labels import label_hash
from mlipdb.records import NewStructure
from mlipdb.structures import Structure, make_structure
from mlipdb.subsets.neighbours import count_pairs
from mlipdb.testing.potential import PairPotential

SMALL = BatchLimits(structures=7, atoms=30, edges=2000)


def teacher_label(db, structure_id, report):
    return next(item for item in db.labels(structure_id) if item.method_id == report.method_id)


def rows_of(db, report, **where):
    with db.session() as session:
        query = select(LabelRow).filter_by(method_id=report.method_id, **where)
        return session.scalars(query.order_by(LabelRow.structure_id, LabelRow.part)).all()


def test_every_structure_gets_the_teachers_own_label(db, ids, teacher):
    report = label(db, teacher, ids=ids, hessian_rows=2, options=LabelOptions(limits=SMALL))
    assert (report.labelled, report.already, report.failed, report.requested) == (40, 0, 0, 40)
    potential = PairPotential()
    for structure_id in ids.tolist():
        structure, found = db.structure(structure_id), teacher_label(db, structure_id, report)
        rows = row_order(structure)[:2]
        hessian = potential.hessian(structure)
        assert found.hessian_row_numbers.tolist() == rows.tolist()
        np.testing.assert_array_equal(found.hessian_rows, hessian[rows])
        assert found.energy_uncorrected == found.atomic_energies.sum()
        assert found.atomic_energies_include_e0
        assert (found.stress is not None) == all(structure.pbc)


def test_the_label_carries_the_teachers_method(db, ids, teacher):
    report = label(db, teacher, ids=ids[:1])
    method = teacher_label(db, 1, report).method
    assert (method.kind, method.name, method.dtype) == ("teacher", "pair-potential", "float64")
    assert method.weights_sha256 == teacher.info.weights_sha256
    assert method.e0_convention == "e0 included"


def test_a_second_run_asks_the_teacher_nothing(db, ids, teacher):
    label(db, teacher, ids=ids, hessian_rows=3)
    teacher.asked.clear()
    again = label(db, teacher, ids=ids, hessian_rows=3)
    assert teacher.asked == []
    assert (again.labelled, again.already, again.rows) == (0, 40, 0)


def test_raising_the_number_of_rows_computes_only_the_missing_ones(db, ids, teacher, tmp_path):
    label(db, teacher, ids=ids, hessian_rows=1)
    teacher.asked.clear()
    report = label(db, teacher, ids=ids, hessian_rows=4)
    sizes = [3 * len(structure) for structure in db.structures(ids)]
    assert teacher.rows_asked == report.rows == sum(min(4, size) - 1 for size in sizes)
    assert not any(base for _, base, _ in teacher.asked)
    for structure_id in ids.tolist():
        structure, found = db.structure(structure_id), teacher_label(db, structure_id, report)
        assert found.hessian_row_numbers.tolist() == row_order(structure)[:4].tolist()
        np.testing.assert_array_equal(found.hessian_rows, PairPotential().hessian(structure)[found.hessian_row_numbers])
        assert found.forces is not None


def test_fewer_rows_than_are_there_need_nothing(db, ids, teacher):
    label(db, teacher, ids=ids, hessian_rows=3)
    assert label(db, teacher, ids=ids, hessian_rows=1).already == 40


@pytest.mark.parametrize("wanted", ["all", 1000])
def test_all_rows_are_three_for_each_atom(db, ids, teacher, wanted):
    report = label(db, teacher, ids=ids, hessian_rows=wanted, options=LabelOptions(limits=SMALL))
    for structure_id in ids.tolist():
        found = teacher_label(db, structure_id, report)
        assert sorted(found.hessian_row_numbers.tolist()) == list(range(3 * len(db.structure(structure_id))))
    assert label(db, teacher, ids=ids, hessian_rows="all").already == 40


def test_a_structure_with_a_foreign_element_fails_with_its_reason_and_the_rest_is_labelled(db, ids):
    narrow = PairPotential(elements=frozenset({1, 6, 8}))
    report = label(db, narrow, ids=ids)
    silicon = [key for key in ids.tolist() if 14 in db.structure(key).composition]
    assert 0 < len(silicon) < 40
    assert (report.failed, report.labelled) == (len(silicon), 40 - len(silicon))
    failed = rows_of(db, report, status="failed")
    assert [row.structure_id for row in failed] == silicon
    assert all("does not cover Si" in row.reason for row in failed)
    assert all(row.shard_id is None for row in failed)
    assert report.reasons[0][1] == "pair-potential does not cover Si"


def test_failures_are_skipped_until_a_retry_is_asked_for(db, ids, teacher):
    broken = Flaky(bad=5)
    first = label(db, broken, ids=ids, options=LabelOptions(limits=SMALL))
    assert first.failed == 5
    broken.bad = 0
    second = label(db, broken, ids=ids, options=LabelOptions(limits=SMALL))
    assert (second.skipped, second.labelled, second.already) == (5, 0, 35)
    third = label(db, broken, ids=ids, options=LabelOptions(limits=SMALL), retry_failed=True)
    assert (third.skipped, third.labelled, third.already) == (0, 5, 35)
    assert rows_of(db, third, status="failed") == []
    assert len(rows_of(db, third, status="done")) == 40


def test_a_retry_that_fails_again_leaves_one_failed_row(db, ids):
    broken = Flaky(bad=3)
    label(db, broken, ids=ids)
    report = label(db, broken, ids=ids, retry_failed=True)
    assert report.failed == 3
    assert len(rows_of(db, report, status="failed")) == 3


class Flaky(PairPotential):
    """Gives forces that are not finite for the structures of the lowest few ids."""

    def __init__(self, bad):
        super().__init__()
        self.bad = bad

    def label(self, structures, request):
        found = super().label(structures, request)
        return [
            replace(item, forces=item.forces * np.nan)
            if structure.id is not None and structure.id <= self.bad
            else item
            for structure, item in zip(structures, found, strict=True)
        ]


class Refusing(PairPotential):
    """Refuses a whole batch when one structure in it has one atom."""

    def label(self, structures, request):
        if any(len(structure) == 1 for structure in structures):
            raise LabelError("one atom is too few")
        return super().label(structures, request)


def test_a_refused_batch_is_halved_until_the_structure_at_fault_is_alone(db, ids):
    report = label(db, Refusing(), ids=ids)
    single = [key for key in ids.tolist() if len(db.structure(key)) == 1]
    assert [row.structure_id for row in rows_of(db, report, status="failed")] == single
    assert report.labelled == 40 - len(single)


class Cramped(PairPotential):
    """Has memory for two structures at a time, and none for one of six atoms."""

    def __init__(self):
        super().__init__()
        self.sizes: list[int] = []

    def label(self, structures, request):
        self.sizes.append(len(structures))
        if len(structures) > 2 or any(len(structure) == 6 for structure in structures):
            raise MemoryError("2 GB wanted")
        return super().label(structures, request)


def test_a_batch_that_does_not_fit_is_halved_and_later_batches_are_smaller(db, ids):
    cramped = Cramped()
    report = label(db, cramped, ids=ids, options=LabelOptions(limits=BatchLimits(structures=8)))
    large = [key for key in ids.tolist() if len(db.structure(key)) == 6]
    failed = rows_of(db, report, status="failed")
    assert [row.structure_id for row in failed] == large
    assert all("out of memory" in row.reason for row in failed)
    assert report.labelled == 40 - len(large)


class Liar(PairPotential):
    """Answers with the rows in another order than asked."""

    def label(self, structures, request):
        return [
            replace(item, hessian_row_numbers=item.hessian_row_numbers[::-1])
            for item in super().label(structures, request)
        ]


def test_rows_that_were_not_asked_for_are_not_stored(db, ids):
    report = label(db, Liar(), ids=ids[:3], hessian_rows=2)
    assert report.failed == 3
    assert "asked for Hessian rows" in report.reasons[0][1]


def test_a_teacher_that_breaks_for_good_stops_the_run_but_what_is_done_is_kept(db, ids):
    class Breaking(PairPotential):
        """An error for one structure is that structure's; this one comes for all from the fourth batch on."""

        calls = 0

        def label(self, structures, request):
            self.calls += 1
            if self.calls >= 4:
                raise RuntimeError("broken cable")
            return super().label(structures, request)

    with pytest.raises(RuntimeError, match="broken cable"):
        label(db, Breaking(), ids=ids, options=LabelOptions(limits=SMALL))
    report = label(db, PairPotential(), ids=ids, options=LabelOptions(limits=SMALL))
    assert (report.failed, report.skipped) == (0, 0)
    assert report.already > 0
    assert report.already + report.labelled == 40


def test_a_teacher_that_never_worked_stops_the_run_without_a_failed_row(db, ids):
    class Broken(PairPotential):
        def label(self, structures, request):
            raise RuntimeError("no device")

    with pytest.raises(RuntimeError, match="no device"):
        label(db, Broken(), ids=ids, options=LabelOptions(limits=SMALL))
    assert label(db, PairPotential(), ids=ids).labelled == 40


class Stumbling(PairPotential):
    """Breaks off, as a package may, on a batch with one of some structures in it, or on such a structure's edges."""

    def __init__(self, bad, where="label"):
        super().__init__()
        self.bad, self.where = bad, where

    def edges(self, structure):
        return self._try([structure], "edges") or super().edges(structure)

    def label(self, structures, request):
        return self._try(structures, "label") or super().label(structures, request)

    def _try(self, structures, where):
        if where == self.where and any(structure.id in self.bad for structure in structures):
            raise IndexError(f"index 0 is out of bounds ({where})")


@pytest.mark.parametrize("where", ["label", "edges"])
@pytest.mark.parametrize("limits", [SMALL, BatchLimits(structures=1)])
def test_a_structure_that_the_teacher_breaks_off_on_is_a_failed_row_and_the_rest_is_labelled(db, ids, where, limits):
    report = label(db, Stumbling({3, 17, 40}, where), ids=ids, options=LabelOptions(limits=limits))
    failed = rows_of(db, report, status="failed")
    assert [row.structure_id for row in failed] == [3, 17, 40]
    assert {row.reason for row in failed} == {f"IndexError: index 0 is out of bounds ({where})"}
    assert report.labelled == 37


def test_the_last_structure_left_fails_instead_of_stopping_each_run(db, ids):
    report = label(db, Stumbling({5}), ids=ids[4:5])
    assert (report.failed, report.labelled) == (1, 0)


def test_a_structure_without_a_neighbour_list_is_a_failed_row(db, ids):
    class NoPlane(PairPotential):
        def edges(self, structure):
            return 0 if structure.id != 2 else count_pairs(_parallel(structure), 5.0)

    report = label(db, NoPlane(), ids=ids)
    assert (report.failed, report.labelled) == (1, 39)
    assert "are parallel" in report.reasons[0][1]


def test_charged_structures_are_failed_rows_of_a_teacher_that_would_take_them_for_neutral(tmp_path, teacher):
    db = mlipdb.create(tmp_path / "ions")
    source = db.open_source("ions", reader="none", uri="made in the test")
    ions = [make_structure([1, 8], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], charge=charge) for charge in (None, 0.0, -1.0)]
    records = [
        NewStructure(structure=ion, label=None, external_id=str(key), material=str(key)) for key, ion in enumerate(ions)
    ]
    report = label(db, teacher, ids=np.array(db.append(records, source_id=source)))
    assert (report.labelled, report.failed) == (2, 1)
    assert "-1 e" in report.reasons[0][1]


def _parallel(structure):
    cell = np.array([[3.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    return Structure(structure.atomic_numbers, structure.positions, cell, (True, True, False), None, None)


def test_labels_are_stored_as_often_as_asked(db, ids, teacher):
    report = label(db, teacher, ids=ids, options=LabelOptions(limits=SMALL, flush=Flush(records=10)))
    with db.session() as session:
        shards = session.scalar(select(func.count(LabelRow.shard_id.distinct())).filter_by(method_id=report.method_id))
    assert shards == 4


def test_what_another_process_has_stored_meanwhile_is_not_doubled(db, ids):
    class Racing(PairPotential):
        raced = False

        def label(self, structures, request):
            if not self.raced:
                self.raced = True
                label(db, PairPotential(), ids=ids[:20], hessian_rows=1)
            return super().label(structures, request)

    report = label(db, Racing(), ids=ids, hessian_rows=1, options=LabelOptions(limits=SMALL))
    assert len(rows_of(db, report)) == 40
    assert db.verify(deep=True).ok


def test_other_weights_of_the_same_name_are_another_method_and_are_named(db, ids):
    first = label(db, PairPotential(), ids=ids[:5])
    second = label(db, PairPotential(strength=0.4), ids=ids[:5])
    assert first.other_methods == ()
    assert [method.weights_sha256 for method in second.other_methods] == [first.method.weights_sha256]
    assert second.labelled == 5
    assert first.method_id != second.method_id


def test_progress_ends_with_everything_done(db, ids, teacher):
    seen = []
    report = label(db, teacher, ids=ids, hessian_rows=1, options=LabelOptions(limits=SMALL), progress=seen.append)
    assert [item.done for item in seen] == sorted(item.done for item in seen)
    assert (seen[-1].done, seen[-1].total, seen[-1].rows) == (40, 40, report.rows)
    assert seen[-1].seconds_left == 0.0


def test_an_id_that_is_not_there_is_an_error_before_any_work(db, teacher):
    with pytest.raises(NotFoundError, match="41"):
        label(db, teacher, ids=np.array([1, 41]))
    assert teacher.asked == []


def test_a_negative_number_of_rows_is_an_error(db, ids, teacher):
    with pytest.raises(LabelError, match="-1"):
        label(db, teacher, ids=ids, hessian_rows=-1)


def test_no_structures_is_no_work(db, teacher):
    report = label(db, teacher, ids=np.zeros(0, np.int64))
    assert (report.requested, report.labelled) == (0, 0)


def test_a_number_of_edges_for_batches_scales_the_teachers_own_limits(db, ids, teacher):
    label(db, teacher, ids=ids, options=LabelOptions(batch_edges=1))
    assert {count for count, _, _ in teacher.asked} == {1}


def test_repeated_ids_are_labelled_once(db, teacher):
    report = label(db, teacher, ids=np.array([3, 1, 3]))
    assert (report.requested, report.labelled) == (2, 2)


def test_stored_labels_are_the_same_whatever_the_order_and_batches(db, ids, teacher, other_db):
    first = label(db, teacher, ids=ids, hessian_rows=2, options=LabelOptions(limits=SMALL))
    second = label(other_db, teacher, ids=ids[::-1], hessian_rows=2)
    for key in ids.tolist():
        assert label_hash(teacher_label(db, key, first)) == label_hash(teacher_label(other_db, key, second))
