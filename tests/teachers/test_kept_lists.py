"""Neighbour lists are made once for a structure that is counted and then labelled, and do not pile up."""

import numpy as np

from mlipdb.structures import make_structure
from mlipdb.teachers.differences import displaced
from mlipdb.teachers.kept_lists import KeptLists
from mlipdb.testing.teachers import crystal


def cells(count):
    return [
        make_structure([14], [[0.0, 0.0, 0.0]], cell=(3.0 + 0.01 * place) * np.eye(3), pbc=(True,) * 3)
        for place in range(count)
    ]


def test_the_list_of_a_counted_structure_is_the_one_that_is_labelled_with():
    lists = KeptLists(5.0)
    assert lists.count(crystal()) == len(lists.of(crystal()))
    assert lists.of(crystal()) is lists.of(crystal())


def test_lists_of_displaced_structures_are_not_kept():
    lists = KeptLists(5.0)
    lists.count(crystal())
    for row in range(6):
        assert len(lists.of(displaced(crystal(), row=row, by=0.01)))
    assert len(lists) == 1


def test_no_more_bytes_are_kept_than_allowed_and_the_oldest_go_first():
    one = KeptLists(5.0)
    one.count(cells(1)[0])
    lists = KeptLists(5.0, most=3 * one.bytes)
    for structure in cells(6):
        lists.count(structure)
        assert lists.bytes <= 3 * one.bytes
    assert len(lists) >= 3
    last, first = cells(6)[-1], cells(6)[0]
    assert lists.of(last) is lists.of(last)
    assert lists.of(first) is not lists.of(first)
