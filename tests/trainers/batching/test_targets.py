import numpy as np
import pytest

from mlipdb.labels import Label
from mlipdb.structures import make_structure
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import GraphShape
from mlipdb.trainers.batching.records import Record
from mlipdb.trainers.batching.targets import Convention, choose_rows, pad_targets

SHAPE = GraphShape(10, 4, 4)


def record(numbers, *, label=None, teacher=None, id=None):
    positions = 10.0 * np.arange(3 * len(numbers)).reshape(-1, 3)
    structure = make_structure(numbers, positions)
    structure = type(structure)(**{**structure.__dict__, "id": id})
    return Record(structure=structure, label=label, teacher=teacher, neighbours=neighbours(structure, 1.0))


def targets(*records, convention=None, **options):
    convention = convention or Convention(energy="energy_uncorrected", e0={1: -1.0, 8: -2.0})
    return pad_targets(records, conventions=[convention] * len(records), shape=SHAPE, **options)


def test_e0_leaves_in_float64_so_that_millielectronvolts_of_a_million_stay():
    # float32 has steps of 0.06 eV at 1e6 eV.
    energies = [-1_000_000.0 - 2.0 + 0.001 * number for number in range(3)]
    convention = Convention(energy="energy_uncorrected", e0={1: -500_000.0})
    found = targets(*(record([1, 1], label=Label(energy_uncorrected=e)) for e in energies), convention=convention)
    assert np.diff(found.energy[:3]) == pytest.approx([0.001, 0.001], rel=1e-3)


def test_only_the_energy_that_the_run_names_is_used():
    label = Label(energy_corrected=-7.0)
    assert not targets(record([1], label=label)).has_energy.any()
    convention = Convention(energy="energy_corrected", e0={1: -1.0})
    found = targets(record([1], label=label), convention=convention)
    assert (found.energy[0], found.has_energy[0]) == (-6.0, True)


def test_missing_labels_are_masked_whatever_is_missing():
    whole = Label(energy_uncorrected=-3.0, forces=np.ones((1, 3)))
    found = targets(record([1], label=whole), record([8], label=None), record([1], label=Label(forces=np.ones((1, 3)))))
    assert found.has_energy.tolist() == [True, False, False, False]
    assert found.has_forces.tolist() == [True, False, True, False]
    for absent in (found.has_stress, found.has_atomic_energies, found.has_hessian_row):
        assert not absent.any()
    assert found.forces[:3].tolist() == [[1.0] * 3, [0.0] * 3, [1.0] * 3]


@pytest.mark.parametrize(
    ("include_e0", "offsets", "expected"),
    [
        (True, {1: 0.25, 8: 0.5}, [0.25 - 4.0 + 1.0, 0.5 - 5.0 + 2.0]),  # aligned to the labels, then the student's E0
        (True, None, [-4.0 + 1.0, -5.0 + 2.0]),  # the paper's way: the same E0 on both sides
        (False, None, [-4.0, -5.0]),  # the teacher's own E0 is off already
        (False, {1: 0.25, 8: 0.5}, [0.25 - 4.0 + 1.0, 0.5 - 5.0 + 2.0]),
    ],
)
def test_atomic_energies_of_a_teacher_in_the_convention_of_the_student(include_e0, offsets, expected):
    teacher = Label(atomic_energies=np.array([-4.0, -5.0]), atomic_energies_include_e0=include_e0)
    convention = Convention(energy="energy_uncorrected", e0={1: -1.0, 8: -2.0}, offsets=offsets)
    found = targets(record([1, 8], teacher=teacher), convention=convention)
    assert found.atomic_energies[:2].tolist() == expected


def test_atomic_energies_aligned_by_structure_add_up_to_the_label_and_keep_their_differences():
    teacher = Label(atomic_energies=np.array([-4.0, -5.0, -5.5]), atomic_energies_include_e0=True)
    convention = Convention(
        energy="energy_uncorrected", e0={1: -1.0, 8: -2.0}, offsets={1: 0.25, 8: 0.5}, to_labels=True
    )
    labelled = record([1, 8, 8], teacher=teacher, label=Label(energy_uncorrected=-11.0))
    found = targets(labelled, record([1, 8, 8], teacher=teacher), convention=convention)
    by_element = np.array([0.25 - 4.0 + 1.0, 0.5 - 5.0 + 2.0, 0.5 - 5.5 + 2.0])
    assert found.atomic_energies[:3].sum() == found.energy[0] == -11.0 + 5.0
    assert np.ptp(found.atomic_energies[:3] - by_element) == pytest.approx(0.0, abs=1e-6)
    assert found.atomic_energies[3:6].tolist() == by_element.tolist()  # without a label the offsets are all


def taught(numbers, rows, id=1):
    values = np.array([[[100.0 * row + atom] * 3 for atom in range(len(numbers))] for row in rows])
    return record(numbers, teacher=Label(hessian_row_numbers=np.array(rows, np.int32), hessian_rows=values), id=id)


def test_hessian_rows_of_a_batch_are_numbered_over_its_atoms():
    # A lone atom (fewer rows than asked for), five atoms, one without rows.
    batch = (taught([1], [2]), taught([1] * 5, [0, 7, 14]), record([8]))
    found = targets(*batch, rows=[np.array([0]), np.array([2, 1]), np.zeros(0, np.int64)], row_count=2)
    assert found.hessian_dofs.tolist() == [[2, 3 + 14, -1, -1], [-1, 3 + 7, -1, -1]]
    assert found.has_hessian_row.tolist() == [[True, True, False, False], [False, True, False, False]]
    assert found.hessian_rows[0, :7, 0].tolist() == [200.0, 1400.0, 1401.0, 1402.0, 1403.0, 1404.0, 0.0]
    assert found.hessian_rows[1, :7, 0].tolist() == [0.0, 700.0, 701.0, 702.0, 703.0, 704.0, 0.0]


def test_rows_are_drawn_without_repetition_from_seed_epoch_and_structure():
    one = taught([1] * 5, list(range(10)), id=7)
    draw = lambda r=one, **keys: choose_rows(r, **{"count": 4, "seed": 0, "epoch": 0, **keys}).tolist()  # noqa: E731
    assert draw() == draw()
    assert len(set(draw())) == 4
    assert len({tuple(draw(epoch=epoch)) for epoch in range(5)}) > 1
    assert draw() != draw(taught([1] * 5, list(range(10)), id=8))
    assert sorted(draw(count=99)) == list(range(10))
    assert draw(record([1])) == []
