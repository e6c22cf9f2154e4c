"""Labels of a teacher as a label set to train on: whole, and never mixed with another."""

from dataclasses import replace

import numpy as np

from mlipdb.catalog import LabelRow
from mlipdb.labelling import LabelOptions, label
from mlipdb.testing.potential import PairPotential
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.prepare import label_method


class Stressless(PairPotential):
    """Gives no stress."""

    def label(self, structures, request):
        return [replace(item, stress=None) for item in super().label(structures, request)]


def test_a_crystal_without_a_stress_is_no_pseudo_label(db, ids):
    crystals = [key for key in ids.tolist() if all(db.structure(key).pbc)]
    report = label(db, Stressless(), ids=ids, options=LabelOptions(pseudo=True))
    assert (report.failed, report.labelled) == (len(crystals), 40 - len(crystals))
    with db.session() as session:
        failed = session.query(LabelRow).filter_by(method_id=report.method_id, status="failed").all()
    assert sorted(row.structure_id for row in failed) == crystals
    assert all("no stress" in row.reason for row in failed)


def test_without_pseudo_a_teacher_need_not_give_a_stress(db, ids):
    assert label(db, Stressless(), ids=ids).labelled == 40


def test_labels_of_an_earlier_run_that_are_not_whole_are_no_pseudo_labels_and_are_named(db, ids):
    crystals = [key for key in ids.tolist() if all(db.structure(key).pbc)]
    label(db, Stressless(), ids=ids)
    seen = []
    report = label(db, Stressless(), ids=ids, hessian_rows=1, options=LabelOptions(pseudo=True), progress=seen.append)
    assert (report.failed, report.labelled, report.already) == (len(crystals), 40 - len(crystals), 0)
    assert [identity for identity, _ in report.reasons] == crystals[: len(report.reasons)]
    assert all("has no stress" in reason for _, reason in report.reasons)
    assert (seen[-1].done, seen[-1].total) == (40, 40)


def test_a_recipe_names_the_teacher_whose_labels_are_learnt(db, ids):
    report = label(db, PairPotential(), ids=ids, options=LabelOptions(pseudo=True))
    for name in ("pair-potential", str(report.method_id)):
        recipe = load_recipe("nano", settings=[f'data.method="{name}"'])
        assert label_method(db, recipe) == report.method_id
    for structure, learnt in db.read(ids, method_id=label_method(db, recipe)):
        assert learnt.energy_uncorrected == learnt.atomic_energies.sum()
        assert (learnt.stress is not None) == all(structure.pbc)
        assert np.isfinite(learnt.forces).all()
