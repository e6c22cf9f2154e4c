"""The fit by composition, beside the same with products of whole matrices."""

import numpy as np
import pytest

from mlipdb.ingest.checks.energies import _open_e0, robust_residuals


def compositions(seed, *, frames=200, elements=12):
    draw = np.random.default_rng(seed)
    shares = np.zeros((frames, 119))
    for row in shares:
        row[draw.choice(elements, size=draw.integers(1, 5), replace=False) + 1] = draw.integers(1, 9)
    return shares / shares.sum(axis=1, keepdims=True)


def whole_matrices(shares, energy):
    weights, residuals = np.ones(len(energy)), energy
    for _ in range(15):
        weighted = shares * weights[:, None]
        e0 = np.linalg.lstsq(weighted.T @ shares, weighted.T @ energy, rcond=1e-10)[0]
        residuals = energy - shares @ e0
        scale = 1.4826 * np.median(np.abs(residuals - np.median(residuals)))
        weights = 1 / np.maximum(np.abs(residuals), 0.3 * scale + 1e-6)
    return residuals


@pytest.mark.parametrize("seed", range(5))
def test_sums_over_the_elements_of_each_frame_fit_as_whole_matrices_do(seed):
    shares = compositions(seed)
    energy = shares @ np.linspace(-9, 3, 119) + np.random.default_rng(seed).normal(size=len(shares))
    np.testing.assert_allclose(robust_residuals(shares, energy), whole_matrices(shares, energy), atol=1e-8)


def test_elements_in_a_fixed_ratio_are_open_and_a_rare_one_is_not():
    shares = compositions(1)
    shares[:, 40] = 2 * shares[:, 3]  # zirconium always comes with twice as much as lithium
    shares[7, 80] = 1e-3
    (finding,) = _open_e0({"shares": shares})
    assert finding.details["elements"] == ["Li", "Zr"]
    assert (finding.details["rank"], finding.details["of"]) == (13, 14)
    assert _open_e0({"shares": compositions(1)}) == []
