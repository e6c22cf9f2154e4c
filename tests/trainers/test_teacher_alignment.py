"""What of a teacher's labels can be learnt, and what is said where it cannot."""

import numpy as np
import pytest

from mlipdb.errors import TrainError
from mlipdb.trainers.batching.packing import Sizes
from mlipdb.trainers.survey import Survey
from mlipdb.trainers.teacher_alignment import align_teacher

E0 = {1: 0.0, 8: 0.0}
WATER = ({1: 2, 8: 1}, {1: 4, 8: 2})
HESSIAN_ONLY = "distillation.loss.atomic_energies_mae=0"


def found(*, energy=(True, True), totals=(True, True), atomic=(True, True), rows=4):
    """Two structures of water: labels of 3 eV a molecule, a teacher's of 0."""
    elements = np.zeros((2, 119))
    elements[1, [1, 8]] = (6, 3) if any(atomic) else (0, 0)
    return Survey(
        sizes=Sizes(atoms=np.array([3, 6]), edges=np.array([6, 12])),
        compositions=WATER,
        energies=np.array([3.0, 6.0]) * energy,
        has_energy=np.array(energy),
        teacher_totals=np.zeros(2),
        has_teacher_total=np.array(totals),
        atomic_sums=np.zeros(2),
        has_atomic_energies=np.array(atomic),
        element_sums=elements,
        hessian_rows=rows,
        force_rms=1.0,
        includes_e0=frozenset({True}),
        forces_missing=0,
        stress_missing=0,
    )


def aligned(tiny, survey, *settings):
    return align_teacher(survey, e0=E0, recipe=tiny(*settings), say=lambda _: None)


def test_hessian_rows_are_learnt_of_a_teacher_without_atomic_energies(tiny):
    assert aligned(tiny, found(atomic=(False, False)), HESSIAN_ONLY) is None
    assert aligned(tiny, found(), HESSIAN_ONLY) is None


def test_a_teacher_without_atomic_energies_is_refused_with_the_setting_that_leaves_them_out(tiny):
    with pytest.raises(TrainError, match=r"hold no atomic energies.*--set distillation.loss.atomic_energies_mae=0"):
        aligned(tiny, found(atomic=(False, False)))


def test_a_teacher_that_has_labelled_nothing_is_told_so(tiny):
    nothing = found(atomic=(False, False), totals=(False, False), rows=0)
    with pytest.raises(TrainError, match=r"has labelled no structure to train on; run mlipdb label"):
        aligned(tiny, nothing)
    with pytest.raises(TrainError, match=r"hold no Hessian rows.*--hessian-rows 4"):
        aligned(tiny, nothing, HESSIAN_ONLY)


def test_energies_and_atomic_energies_of_different_structures_are_told_apart_from_none(tiny):
    with pytest.raises(
        TrainError, match=r"1 structures to train on have energy_uncorrected, 1 the teacher's.*none has"
    ):
        aligned(tiny, found(energy=(True, False), atomic=(False, True)))


def test_the_student_s_e0_are_part_of_what_is_brought_to_zero(tiny):
    """1 eV an atom fits; one composition fixes no more than that, so each offset goes to the element's E0."""
    alignment = align_teacher(found(), e0={1: 2.5, 8: -2.0}, recipe=tiny(), say=lambda _: None)
    assert alignment.offsets == pytest.approx({1: 2.5, 8: -2.0})
