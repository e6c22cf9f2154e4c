"""Whole numbers of hundreds of digits, which JSON and YAML may hold and no float does: the record is refused."""

import json

import pytest

from mlipdb.errors import LabelError
from mlipdb.ingest.pymatgen_json import RecordError, array, number
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.mptrj import MptrjReader
from mlipdb.ingest.vasp.methods import numbers
from mlipdb.labels import check_label

HUGE = 10**400


def test_a_number_without_a_float_is_refused_and_shown_in_short():
    with pytest.raises(RecordError, match=r"^energy is 100000000000… \(401 characters\); it is too large"):
        number(HUGE, "energy")
    with pytest.raises(RecordError, match=r"^forces holds a whole number that is too large"):
        array([[0, 0, -HUGE]], "forces")


def test_a_setting_ends_before_a_number_without_a_float():
    assert numbers([1, HUGE, 2]) == [1.0]


def huge(text, digits):
    """JSON in which a number of so many digits stands for "HUGE"."""
    return text.replace('"HUGE"', "1" + "0" * digits)


CHANGES = [
    {"uncorrected_total_energy": "HUGE"},
    {"force": [["HUGE", 0, 0], [0, 0, 0]]},
    {"stress": [["HUGE", 0, 0], [0, 0, 0], [0, 0, 0]]},
    {"ef_per_atom": "HUGE"},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_a_record_with_one_is_quarantined_and_the_next_is_read(mptrj_file, record, changes):
    text = json.dumps({"mp-1": {"mp-1-0-0": record(**changes), "mp-1-0-1": record()}})
    bad, good = MptrjReader().frames(mptrj_file(huge(text, 400)), {})
    assert isinstance(bad, Rejected)
    assert "too large for a number of 64 bits" in bad.reason
    assert isinstance(good, Frame)


@pytest.mark.parametrize("changes", CHANGES)
def test_of_more_digits_than_python_takes_it_is_not_finite(mptrj_file, record, changes):
    text = json.dumps({"mp-1": {"mp-1-0-0": record(**changes), "mp-1-0-1": record()}})
    bad, good = MptrjReader().frames(mptrj_file(huge(text, 5000)), {})
    with pytest.raises(LabelError, match="finite"):
        check_label(bad.label, natoms=2, pbc=(True, True, True))
    check_label(good.label, natoms=2, pbc=(True, True, True))
