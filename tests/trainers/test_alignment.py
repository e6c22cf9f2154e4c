import numpy as np
import pytest

from mlipdb.trainers.alignment import align

COMPOSITIONS = [{1: 2, 8: 1}, {1: 4}, {8: 3, 6: 1}, {6: 2, 1: 6}, {8: 2}, {1: 1, 6: 1, 8: 1}]
OFFSETS = {1: -0.3, 6: 0.7, 8: 1.5}


def shifted(noise=0.0):
    rng = np.random.default_rng(0)
    exact = [sum(OFFSETS[z] * n for z, n in each.items()) for each in COMPOSITIONS]
    return np.array(exact) + noise * rng.normal(size=len(COMPOSITIONS))


def test_offsets_of_another_convention_are_found_and_leave_nothing():
    found = align(shifted(), COMPOSITIONS)
    assert found.offsets == pytest.approx(OFFSETS)
    atoms = np.array([sum(each.values()) for each in COMPOSITIONS])
    assert found.rms_before == pytest.approx(np.sqrt(np.mean((shifted() / atoms) ** 2)))
    assert found.rms_after == pytest.approx(0.0, abs=1e-12)


def test_an_offset_by_composition_raises_the_alarm_and_noise_does_not():
    assert align(shifted(0.01), COMPOSITIONS).conventions_differ
    many = COMPOSITIONS * 50
    noise = np.random.default_rng(1).normal(size=len(many))
    assert not align(noise, many).conventions_differ


def test_elements_that_always_come_together_get_the_smallest_offsets():
    found = align(np.array([2.0, 4.0]), [{1: 1, 17: 1}, {1: 2, 17: 2}])
    assert found.offsets == pytest.approx({1: 1.0, 17: 1.0})


def test_what_compositions_leave_open_brings_atomic_energies_nearest_to_zero():
    """Water only, off by 1 eV a structure: 2 h + o = 1, and zero means would be h = 3, o = -7, which is 2 h + o = -1.

    So 2 eV a molecule are left, shared in proportion to what they weigh least with: 2/3 an atom.
    """
    water, means = [{1: 2, 8: 1}, {1: 4, 8: 2}], {1: (-3.0, 6), 8: (7.0, 3)}
    found = align(np.array([1.0, 2.0]), water, means=means)
    assert found.offsets == pytest.approx({1: 3 + 2 / 3, 8: -7 + 2 / 3})
    assert (found.rank, found.describe()["elements"]) == (1, 2)
    least = align(np.array([1.0, 2.0]), water)
    assert [2 * each.offsets[1] + each.offsets[8] for each in (found, least)] == pytest.approx([1.0, 1.0])
    assert found.rms_after == pytest.approx(0.0, abs=1e-12)


def test_offsets_that_the_data_fix_do_not_move():
    means = dict.fromkeys(OFFSETS, (100.0, 5))
    assert align(shifted(0.1), COMPOSITIONS, means=means).offsets == align(shifted(0.1), COMPOSITIONS).offsets


def test_totals_say_how_far_apart_the_energies_were_when_sums_lack_e0():
    totals = 0.01 * np.ones(len(COMPOSITIONS))
    found = align(shifted(), COMPOSITIONS, before=totals)
    assert found.rms_before < 0.01
    assert found.offsets == pytest.approx(OFFSETS)
