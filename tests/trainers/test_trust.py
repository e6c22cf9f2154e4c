"""Labels that contradict those they stand beside are not learnt unawares."""

from dataclasses import replace

import numpy as np
import pytest

from mlipdb.errors import TrainError
from mlipdb.labels import Method
from mlipdb.records import NewLabel
from mlipdb.testing.training import training_database
from mlipdb.trainers.train import train
from mlipdb.trainers.trust import _family, check_trust


@pytest.fixture
def db(tmp_path):
    """Crystals with DFT labels, a teacher that fits them (2) and one whose forces have the other sign (3)."""
    db = training_database(tmp_path / "db")
    ids = db.query("all").ids.tolist()
    taught = [label for _, label in db.read(ids, method_id=2)]
    turned = [replace(label, forces=-label.forces) for label in taught]
    new = [NewLabel(structure_id=key, part=0, label=label) for key, label in zip(ids, turned, strict=True)]
    db.append_labels(new, method_id=db.method_id(Method(kind="teacher", name="turned")))
    yield db
    db.close()


@pytest.fixture
def check(db):
    """Checks methods on all structures; what was said."""

    def checked(*methods, accept=False):
        said = []
        check_trust(db, methods, ids=db.query("all").ids, accept=accept, say=said.append)
        return said

    return checked


def test_a_teacher_that_fits_passes_without_a_word(check):
    assert check(2, None) == []


def test_a_teacher_with_turned_forces_is_refused_with_the_command_that_shows_it(check):
    with pytest.raises(TrainError, match=r"forces fails \(the sign is turned") as caught:
        check(3, None)
    for words in ("labels of turned (3)", "labels compare source 3", "--accept-labels"):
        assert words in str(caught.value)


def test_accepted_labels_are_learnt_with_a_warning(check):
    [said] = check(3, None, accept=True)
    assert said.startswith("WARNING: labels of turned (3)")


def test_the_dft_method_that_is_learnt_is_what_a_teacher_is_compared_with(check):
    with pytest.raises(TrainError, match="labels compare 1 3"):
        check(3, 1)


def test_a_teacher_whose_labels_are_learnt_as_such_is_checked_as_well(check):
    with pytest.raises(TrainError, match="turned"):
        check(None, 3)


def test_labels_without_others_beside_them_are_not_checked(db):
    said = []
    ids = np.zeros(0, np.int64)
    check_trust(db, (3,), ids=ids, accept=False, say=said.append)
    assert "not checked" in said[0]


def test_a_training_on_refused_labels_leaves_no_run(db, tiny, listener):
    with pytest.raises(TrainError, match="turned"):
        train(db, "toy", recipe=tiny(), reporter=listener, teacher="turned", name="refused")
    assert not (db.path / "runs" / "refused").exists()


def functional_teacher(db, functional):
    """The fitting teacher's labels again, by a teacher that says its functional."""
    ids = db.query("all").ids.tolist()
    labels = [label for _, label in db.read(ids, method_id=2)]
    new = [NewLabel(structure_id=key, part=0, label=label) for key, label in zip(ids, labels, strict=True)]
    number = db.method_id(Method(kind="teacher", name=f"of-{functional}", functional=functional))
    db.append_labels(new, method_id=number)
    return number


def test_a_teacher_of_another_functional_than_the_labels_is_refused_with_the_fix(db, check):
    labels = db.method_id(Method(kind="dft", name="mine", functional="PBE+U"))
    same, other, hybrid, unknown = (functional_teacher(db, name) for name in ("PBE", "r2SCAN", "wB97M-D3", "of-a-kind"))
    with pytest.raises(TrainError, match=r"of-r2SCAN is of r2SCAN.*of PBE\+U.*choose a teacher of PBE\+U.*--accept"):
        check(other, labels)
    with pytest.raises(TrainError, match=r"of-wB97M-D3 is of wB97M-D3"):
        check(hybrid, labels)
    for teacher in (same, unknown):
        assert not any("functional" in line or " is of " in line for line in check(teacher, labels))
    assert any(line.startswith("WARNING: the teacher of-r2SCAN") for line in check(other, labels, accept=True))


def test_the_functional_of_labels_that_came_with_structures_counts_too(tmp_path):
    db = training_database(tmp_path / "db", dft=Method(kind="dft", name="mine", functional="PBE"))
    with pytest.raises(TrainError, match="r2SCAN"):
        check_trust(
            db, [functional_teacher(db, "r2SCAN"), None], ids=db.query("all").ids, accept=False, say=lambda text: None
        )
    db.close()


@pytest.mark.parametrize(
    ("functional", "family"),
    [
        ("wB97M-V", "wb97m"),
        ("ωB97M-D3(BJ)", "wb97m"),
        ("wB97M-D3BJ", "wb97m"),
        ("wB97X-D", "wb97x"),
        ("B3LYP", "b3lyp"),
        ("B3LYP-D3(BJ)", "b3lyp"),
        ("HSE06", "hse06"),
        ("PBE+U", "pbe"),
        ("r2SCAN", "r2scan"),
        ("PBE+D3(BJ)", None),  # a dispersion correction is no small part of a GGA
        ("made up", None),
        (None, None),
    ],
)
def test_functionals_are_told_apart_by_family(functional, family):
    assert _family(functional) == family
