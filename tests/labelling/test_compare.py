import numpy as np
import pytest

import mlipdb
from mlipdb.errors import NotFoundError
from mlipdb.labelling.comparison import SOURCE, compare_labels
from mlipdb.labelling.runner import label
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


def test_as_many_elements_as_structures_leave_nothing_to_compare_after_alignment(compared):
    db, ids, _ = compared
    _, lines = against_the_source(db, label(db, PairPotential(), ids=ids[:2]), ids[:2])
    assert lines["energy, aligned by element"].rmse is None


def test_without_the_teachers_labels_there_is_no_comparison(compared):
    db, ids, _ = compared
    report = label(db, PairPotential(), ids=ids[:2])
    with pytest.raises(NotFoundError):
        against_the_source(db, report, ids[4:])
