"""Arrays with and without numbers that are not finite."""

import numpy as np
import pytest

from mlipdb.finite import all_finite


@pytest.mark.parametrize("shape", [(0, 3), (1,), (3, 3), (200, 3)])
def test_finite_numbers_are_finite_in_any_shape_and_order(shape):
    values = np.linspace(-8e307, 8e307, int(np.prod(shape))).reshape(shape)
    assert all_finite(values)
    assert all_finite(values.T)
    assert all_finite(np.zeros(shape, np.int32))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 17, 599])
def test_one_odd_number_anywhere_is_found(odd, place):
    values = np.zeros((200, 3))
    values.flat[place] = odd
    assert not all_finite(values)
    assert not all_finite(values.T)
