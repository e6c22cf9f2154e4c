import numpy as np
import pytest

from mlipdb.errors import ConfigError, NotFoundError
from mlipdb.subsets.statistics import ForceScale, energy_shift, fit_e0, open_directions

TRUE = {1: -3.25, 8: -432.5, 39: -9.125}


def total(composition):
    return sum(count * TRUE[number] for number, count in composition.items())


def test_energies_that_are_sums_of_e0_give_those_e0_back():
    compositions = [{1: 2, 8: 1}, {8: 2}, {39: 2, 8: 3}, {39: 1, 1: 3}]
    fit = fit_e0(compositions, np.array([total(each) for each in compositions]))
    assert fit.atomic_numbers.tolist() == [1, 8, 39]
    np.testing.assert_allclose(fit.e0, [TRUE[1], TRUE[8], TRUE[39]], rtol=0, atol=1e-10)
    assert fit.structures.tolist() == [2, 3, 2]
    assert fit.rank == 3
    assert not fit.rank_deficient
    assert fit.residual_rms < 1e-10


def test_what_the_data_leave_open_is_the_solution_of_least_norm_and_said_so():
    """Water only: 2 h + o is all that can be known, here 9 eV, so (h, o) = 9 (2, 1) / 5."""
    fit = fit_e0([{1: 2, 8: 1}, {1: 4, 8: 2}], np.array([9.0, 18.0]))
    assert fit.rank == 1
    assert fit.rank_deficient
    np.testing.assert_allclose(fit.e0, [3.6, 1.8])
    np.testing.assert_allclose(fit.energies([{1: 6, 8: 3}]), [27.0])


@pytest.mark.parametrize("compositions", [[{1: 2, 8: 1}], [{1: 2, 8: 1}] * 9, [{1: 2, 8: 1}, {39: 1}]])
def test_open_directions_are_those_that_change_no_energy(compositions):
    """(1, -2) / √5 in h and o, and nothing of what the second composition fixes."""
    (found,) = open_directions(compositions)
    np.testing.assert_allclose(np.abs(found[:2]), np.array([1, 2]) / np.sqrt(5), atol=1e-12)
    assert found[0] * found[1] < 0
    np.testing.assert_allclose(found[2:], 0.0, atol=1e-12)


def test_the_residual_is_per_atom():
    """One element, energies per atom 1 and 3: the best is 2, off by 1 each."""
    fit = fit_e0([{8: 1}, {8: 4}], np.array([1.0, 12.0]))
    np.testing.assert_allclose(fit.e0, [2.0])
    np.testing.assert_allclose(fit.residual_rms, 1.0)


def test_large_energies_keep_their_millielectronvolts():
    compositions = [{8: count, 39: 1} for count in range(1, 30)]
    energies = np.array([-2.5e6 * count - 1e5 + 1e-3 * (count == 7) for count in range(1, 30)])
    fit = fit_e0(compositions, energies)
    residual = energies - fit.energies(compositions)
    assert np.abs(residual).argmax() == 6
    assert 1e-4 < np.abs(residual).max() < 2e-3


def test_an_element_outside_the_fit_is_named():
    fit = fit_e0([{8: 2}], np.array([-10.0]))
    with pytest.raises(NotFoundError, match="Li, Y"):
        fit.energies([{39: 1, 3: 1, 8: 1}])


@pytest.mark.parametrize(
    ("compositions", "energies"), [([], []), ([{8: 1}], [1.0, 2.0]), ([{8: 1}, {8: 2}], [1.0, float("nan")])]
)
def test_a_fit_without_data_is_refused(compositions, energies):
    with pytest.raises(ConfigError, match="E0 fit"):
        fit_e0(compositions, np.array(energies, dtype=np.float64))


def test_the_shift_counts_structures_and_not_atoms():
    """Means of -1/1 and -8/4: -1.5; by atoms it would be -9/5."""
    assert energy_shift(np.array([-1.0, -8.0]), np.array([1, 4])) == -1.5


def test_the_scale_is_over_every_force_component():
    scale = ForceScale()
    scale.add(np.array([[3.0, 0.0, 0.0]]))
    scale.add(np.array([[0.0, 4.0, 0.0], [0.0, 0.0, 0.0]]))
    assert scale.rms == pytest.approx(5 / 3)  # sqrt((9 + 16) / 9)


def test_the_scale_without_forces_can_still_divide():
    scale = ForceScale()
    assert scale.rms == 1.0
    scale.add(np.zeros((2, 3)))
    assert scale.rms == 1.0
