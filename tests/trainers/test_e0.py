"""Offsets to a foundation's energies of isolated atoms."""

import numpy as np
import pytest

from mlipdb.trainers.e0 import given, reestimated
from mlipdb.trainers.student import DataFacts

H, C, O, SI = 1, 6, 8, 14  # noqa: E741
MIXED = [{H: 2, O: 1}, {C: 1, O: 2}, {H: 4, C: 1}, {H: 2, C: 2, O: 2}]


def totals(offsets, compositions):
    return np.array([sum(offsets[z] * n for z, n in each.items()) for each in compositions])


def test_offsets_that_made_the_difference_are_found_again():
    made = {H: -13.6, C: -1028.0, O: -2040.123456789}
    found = reestimated(totals(made, MIXED), MIXED)
    assert found.offsets == pytest.approx(made, abs=1e-9)
    assert (found.structures, found.rank) == (4, 3)
    assert found.rms_before > 100
    assert found.rms_after < 1e-9


def test_the_error_per_atom_is_what_is_small_so_that_large_structures_do_not_decide_alone():
    # Two sizes of one element: 1 eV too much in one atom, none in a hundred: the mean per atom, not 1/101.
    found = reestimated(np.array([1.0, 0.0]), [{C: 1}, {C: 100}])
    assert found.offsets[C] == pytest.approx(0.5)
    assert found.rms_before == pytest.approx(np.sqrt(0.5))


def test_structures_of_one_composition_get_one_offset_for_all_atoms():
    found = reestimated(np.array([-15.0, -15.3]), [{H: 8, C: 5, O: 2}] * 2)
    assert set(found.offsets) == {H, C, O}
    assert found.offsets[H] == pytest.approx(-1.01) == found.offsets[C] == found.offsets[O]
    assert found.rank == 1
    assert "rank 1 do not decide 3" in found.text


def test_what_the_compositions_leave_open_stays_as_near_to_one_offset_as_it_can():
    # H and O come as water only: their offsets are told apart from C's but not from each other.
    found = reestimated(
        totals({H: 1.0, C: 5.0, O: 4.0}, [{H: 2, O: 1}, {C: 1}, {C: 2, H: 2, O: 1}]),
        [{H: 2, O: 1}, {C: 1}, {C: 2, H: 2, O: 1}],
    )
    assert found.rms_after < 1e-9
    assert 2 * found.offsets[H] + found.offsets[O] == pytest.approx(6.0)
    assert found.offsets[C] == pytest.approx(5.0)
    mean = np.mean([6.0 / 3, 5.0, 16.0 / 5])
    shortest = (6.0 - 3 * mean) / 5  # of all offsets (a, b) from the mean with 2a + b given, (2, 1) times this
    assert found.offsets[H] - mean == pytest.approx(2 * shortest)


def nearly_alike(difference, *, defects=1):
    """Silica, 50 cells, and some that lack an oxygen, whose labels differ by this in eV/atom more; noise of 5 meV."""
    compositions = [{SI: 32, O: 64}] * 50 + [{SI: 32, O: 63}] * defects
    noise = np.random.default_rng(0).normal(0.0, 0.005, len(compositions))
    noise[50:] += difference
    return noise * np.array([sum(each.values()) for each in compositions]), compositions


def test_compositions_that_are_nearly_alike_do_not_make_offsets_of_electronvolts_from_noise():
    found = reestimated(*nearly_alike(0.020))
    assert max(abs(offset) for offset in found.offsets.values()) < 0.01
    assert found.offsets[SI] == pytest.approx(found.offsets[O], abs=1e-3)
    assert found.rank == 1
    assert "rank 1 do not decide 2" in found.text


def test_a_rare_composition_decides_an_offset_where_no_noise_could_be_its_difference():
    # All-electron labels: a missing oxygen is -2040 eV more, 20 eV/atom on that structure.
    made = {SI: -7900.0, O: -2040.0}
    noise, compositions = nearly_alike(0.0)
    found = reestimated(totals(made, compositions) + noise, compositions)
    assert found.rank == 2
    assert found.offsets == pytest.approx(made, rel=1e-3)
    assert found.rms_after < 0.006


def test_two_structures_alone_are_no_reason_to_trust_what_they_hardly_tell_apart():
    compositions = [{SI: 32, O: 64}, {SI: 32, O: 63}]
    assert reestimated(np.array([0.0, 1.9]), compositions).rank == 1


def test_only_elements_that_occur_get_an_offset_and_others_keep_theirs():
    found = reestimated(np.array([-2.0]), [{H: 2}])
    facts = DataFacts(atomic_numbers=(H, C), e0=(-1.0, -7.0), scale=2.0, shift=0.5, avg_n_neighbors=9.0)
    changed = found.applied(facts)
    assert changed.e0 == (-2.0, -7.0)
    assert (changed.scale, changed.shift, changed.avg_n_neighbors) == (2.0, 0.5, 9.0)


def test_without_energies_nothing_is_added_and_that_is_said():
    found = reestimated(np.zeros(0), [])
    assert (found.offsets, found.rms_before, found.rms_after) == ({}, None, None)
    assert "no structure to train on has an energy" in found.text


def test_given_energies_are_offsets_to_the_foundations_and_measured_by_what_they_leave():
    found = given("isolated", before={H: -1.0, O: -2.0}, after={H: -13.0}, differences=np.array([-24.0, 0.0]),
                  compositions=[{H: 2}, {O: 1}])  # fmt: skip
    assert found.offsets == {H: -12.0}
    assert (found.rms_before, found.rms_after) == (pytest.approx(12.0 / np.sqrt(2)), 0.0)
    assert found.describe()["offsets"] == {"H": -12.0}
