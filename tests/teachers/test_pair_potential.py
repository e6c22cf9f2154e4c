import numpy as np
import pytest

from mlipdb.labelling.teacher import LabelRequest
from mlipdb.structures import make_structure
from mlipdb.testing.potential import PairPotential
from mlipdb.testing.teachers import TeacherConformance, crystal


class TestPairPotential(TeacherConformance):
    def teacher(self):
        return PairPotential()


def test_a_repelling_pair_has_the_hessian_that_is_written_by_hand():
    # phi(r) = A (1 - r²/16)³ at r = 2 Å along x, A = 0.3 eV: phi'' = A (-6/16 u² + 24 r² u / 16²), u = 3/4
    pair = make_structure([1, 1], [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    curvature = 0.3 * (-6 / 16 * 0.75**2 + 24 * 4.0 * 0.75 / 256)
    sideways = 0.3 * (-6 / 16 * 0.75**2)  # phi'(r)/r
    rows = np.array([0, 4], np.int32)
    label = PairPotential().label([pair], LabelRequest(base=True, hessian_row_numbers=[rows]))[0]
    assert label.energy_uncorrected == pytest.approx(0.3 * 0.75**3 - 2.0)
    assert label.hessian_rows[0] == pytest.approx(np.array([[curvature, 0, 0], [-curvature, 0, 0]]))
    assert label.hessian_rows[1] == pytest.approx(np.array([[0, -sideways, 0], [0, sideways, 0]]))


def test_compression_of_a_repelling_crystal_has_negative_stress():
    label = PairPotential().label([crystal()], LabelRequest(base=True, hessian_row_numbers=[np.zeros(0, np.int32)]))[0]
    assert np.trace(label.stress) < 0


def test_the_hessian_is_symmetric_and_moving_everything_costs_nothing():
    hessian = PairPotential().hessian(crystal()).reshape(6, 6)
    assert hessian == pytest.approx(hessian.T)
    assert hessian.reshape(6, 2, 3).sum(axis=1) == pytest.approx(np.zeros((6, 3)), abs=1e-12)
