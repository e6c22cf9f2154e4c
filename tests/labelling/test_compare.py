from dataclasses import replace

import numpy as np
import pytest

import mlipdb
from mlipdb.errors import NotFoundError
from mlipdb.labelling.comparison import SOURCE, compare_labels
from mlipdb.labelling.runner import label
from mlipdb.labelling.teacher import LabelRequest
from mlipdb.labels import Label
from mlipdb.records import NewStructure
from mlipdb.structures import make_structure
from mlipdb.testing.potential import PairPotential

OFFSETS = {6: 3.0, 8: -1.0}  # eV per atom by which the source's zero differs from the teacher's


@pytest.fixture
def compared(tmp_path):
    """A source whose energies are the potential's with other zeros, and whose forces are 0.01 eV/Å off."""
    db, random, potential = mlipdb.create(tmp_path / "db"), np.random.default_rng(1), PairPotential()
    structures = [
        make_structure(random.choice([6, 8], size), random.uniform(0, 5, (size, 3)))
        for size in random.integers(2, 6, 12).tolist()
    ]
    records = []
    for key, structure in enumerate(structures):
        exact = potential._label(structure, rows=np.zeros(0, np.int32), base=True)
        offset = sum(OFFSETS[number] for number in structure.atomic_numbers.tolist())
        source = Label(energy_uncorrected=exact.energy_uncorrected + offset, forces=exact.forces + 0.01)
        records.append(NewStructure(structure=structure, label=source, external_id=str(key), material=str(key)))
    source_id = db.open_source("made", reader="none", uri="made in the test")
    ids = np.array(db.append(records, source_id=source_id))
    return db, ids, structures


def against_the_source(db, report, ids):
    named = " OR ".join(f"id={number}" for number in ids.tolist())
    found = compare_labels(db, SOURCE, str(report.method_id), filter=named)
    return found, {line.quantity: line for line in found.lines if line.of == "both"}


def test_a_constant_per_element_is_taken_off_before_the_second_number(compared):
    db, ids, structures = compared
    found, lines = against_the_source(db, label(db, PairPotential(), ids=ids), ids)
    raw = [np.mean([OFFSETS[number] for number in item.atomic_numbers.tolist()]) for item in structures]
    assert found.structures == 12
    assert lines["energy as stored"].rmse == pytest.approx(np.sqrt(np.mean(np.square(raw))))
    assert lines["energy, aligned by element"].rmse == pytest.approx(0.0, abs=1e-9)
    assert found.constants == pytest.approx({number: -offset for number, offset in OFFSETS.items()})
    assert lines["forces"].mae == pytest.approx(0.01)


class Corrected(PairPotential):
    """Gives its energy as one after a correction, as weights do that were trained on corrected energies."""

    def __init__(self):
        super().__init__()
        self.info = replace(self.info, energy="energy_corrected")

    def label(self, structures, request):
        found = super().label(structures, request)
        return [replace(item, energy_uncorrected=None, energy_corrected=item.energy_uncorrected) for item in found]


def test_a_corrected_energy_is_compared_with_the_corrected_one(compared):
    db, ids, structures = compared
    source = db.open_source("corrected", reader="none", uri="made in the test")
    none = LabelRequest(base=True, hessian_row_numbers=[np.zeros(0, np.int32)] * len(structures))
    both = [replace(one, energy_uncorrected=100.0) for one in Corrected().label(structures, none)]
    records = [
        NewStructure(structure=structure, label=one, external_id=str(key), material=f"c-{key}")
        for key, (structure, one) in enumerate(zip(structures, both, strict=True))
    ]
    ids = np.array(db.append(records, source_id=source))
    report = label(db, Corrected(), ids=ids)
    found, lines = against_the_source(db, report, ids)
    assert lines["energy as stored"].rmse == 0.0
    assert found.notes == ()
    assert report.method.energy_kind == "energy_corrected"
    assert report.method_id != label(db, PairPotential(), ids=ids).method_id


def test_energies_of_different_kinds_are_compared_with_a_word_on_it(compared):
    db, ids, _ = compared
    found, lines = against_the_source(db, label(db, Corrected(), ids=ids), ids)
    assert lines["energy, aligned by element"].rmse == pytest.approx(0.0, abs=1e-9)
    assert "energy_uncorrected against energy_corrected" in lines["energy as stored"].words
    assert "not of one kind" in found.notes[0]
    sums = {line.of: line for line in found.lines if line.quantity == "sum of atomic energies"}
    assert [line.rmse for line in sums.values()] == pytest.approx([0.0], abs=1e-9)


def test_as_many_elements_as_structures_leave_nothing_to_compare_after_alignment(compared):
    db, ids, _ = compared
    _, lines = against_the_source(db, label(db, PairPotential(), ids=ids[:2]), ids[:2])
    assert lines["energy, aligned by element"].rmse is None


def test_without_the_teachers_labels_there_is_no_comparison(compared):
    db, ids, _ = compared
    report = label(db, PairPotential(), ids=ids[:2])
    with pytest.raises(NotFoundError):
        against_the_source(db, report, ids[4:])
