import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlipdb.labelling.rows import row_order, row_target, wanted_rows
from mlipdb.structures import make_structure


def chain(size):
    return make_structure(np.full(size, 6), np.arange(3.0 * size).reshape(size, 3))


@given(size=st.integers(1, 30))
def test_the_order_has_every_row_once(size):
    assert sorted(row_order(chain(size)).tolist()) == list(range(3 * size))


@given(size=st.integers(1, 12), first=st.integers(0, 40), second=st.integers(0, 40))
def test_rows_added_later_continue_those_that_are_there(size, first, second):
    structure, low, high = chain(size), min(first, second), max(first, second)
    begun = wanted_rows(structure, have=0, want=low)
    added = wanted_rows(structure, have=len(begun), want=high)
    assert [*begun, *added] == wanted_rows(structure, have=0, want=high).tolist()


def test_the_order_is_the_same_in_every_version_and_on_every_machine():
    # SHAKE-128 of the content hash as little-endian 64-bit keys, sorted; computed with hashlib and sorted() alone
    assert row_order(chain(3)).tolist() == [5, 0, 3, 1, 4, 7, 2, 8, 6]


def test_the_order_depends_on_the_structure():
    other = make_structure(np.full(10, 6), np.arange(30.0).reshape(10, 3) + 1.0)
    assert row_order(chain(10)).tolist() != row_order(other).tolist()


def test_more_rows_than_a_structure_has_means_all():
    assert row_target(2, 100) == row_target(2, "all") == 6
    assert row_target(2, 4) == 4
