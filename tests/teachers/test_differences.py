import numpy as np
import pytest

from mlipdb.errors import ConfigError
from mlipdb.labelling.teacher import LabelRequest
from mlipdb.teachers.differences import DEFAULT_STEP, chosen_step, difference_rows
from mlipdb.testing.potential import PairPotential
from mlipdb.testing.teachers import crystal, molecule, slab

NONE = np.zeros(0, np.int32)


class Forces:
    """Forces of a potential whose Hessian is known, remembering how many structures each call had."""

    def __init__(self):
        self.potential = PairPotential()
        self.calls = []

    def __call__(self, structures):
        self.calls.append(len(structures))
        labels = self.potential.label(structures, LabelRequest(base=True, hessian_row_numbers=[NONE] * len(structures)))
        return [label.forces for label in labels]


def test_differences_are_rows_of_plus_the_hessian_in_the_order_asked():
    structures = [crystal(), molecule(), slab()]
    numbers = [np.array([5, 0, 3], np.int32), NONE, np.array([2], np.int32)]
    found = difference_rows(Forces(), structures, numbers, step=1e-3)
    assert found[1] is None
    for structure, rows, part in zip(structures, numbers, found, strict=True):
        if part is not None:
            np.testing.assert_allclose(part, PairPotential().hessian(structure)[rows], atol=1e-5)


def test_the_error_falls_with_the_square_of_the_step():
    rows = [np.arange(6, dtype=np.int32)]
    exact = PairPotential().hessian(crystal())
    errors = [np.abs(difference_rows(Forces(), [crystal()], rows, step=step)[0] - exact).max() for step in (0.02, 0.01)]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_no_call_has_more_structures_than_the_batch():
    forces, structures = Forces(), [crystal(), molecule()]
    difference_rows(forces, structures, [np.arange(6, dtype=np.int32), np.arange(2, dtype=np.int32)], step=0.01)
    assert forces.calls == [2] * 4 + [1] * 8


def test_structures_keep_their_positions():
    structure = crystal()
    before = structure.positions.copy()
    difference_rows(Forces(), [structure], [np.array([4], np.int32)], step=0.01)
    assert structure.positions.tolist() == before.tolist()


@pytest.mark.parametrize("step", [0.0, -0.01, 1.0, float("nan")])
def test_a_step_that_makes_no_difference_is_refused(step):
    with pytest.raises(ConfigError, match="central difference"):
        chosen_step(step)


def test_without_a_step_the_default_is_taken():
    assert chosen_step(None) == DEFAULT_STEP
    assert chosen_step(0.002) == 0.002
