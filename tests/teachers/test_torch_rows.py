"""Rows in chunks of one backward pass, and one by one where that is not possible."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mlipdb.teachers.torch_rows import chunk_on, hessian_rows  # noqa: E402 - torch may be absent

POSITIONS = torch.tensor([[0.1, 0.2, 0.3], [0.5, -0.4, 0.2]], dtype=torch.float64)
DOFS = np.arange(5, dtype=np.int32)[:, None]


class Cube(torch.autograd.Function):
    """x³ by a rule of its own, as packages' kernels have them, without one for batches."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, given):
        (x,) = ctx.saved_tensors
        return Square.apply(x) * given


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return 3 * x**2

    @staticmethod
    def backward(ctx, given):
        (x,) = ctx.saved_tensors
        if torch._C._functorch.is_batchedtensor(given):
            raise RuntimeError("no rule for batches")
        return 6 * x * given


@pytest.mark.parametrize("chunk", [1, 2, 8])
@pytest.mark.parametrize("energy", [lambda x: (x**3).sum(), lambda x: Cube.apply(x).sum()])
def test_rows_do_not_depend_on_the_chunk_and_not_on_whether_batches_are_possible(chunk, energy):
    rows = hessian_rows(energy, POSITIONS, DOFS, chunk=chunk)
    expected = np.diag(6 * POSITIONS.numpy().ravel())[:5].reshape(5, 2, 3)
    np.testing.assert_allclose(rows, expected, atol=1e-12)


def test_an_error_of_a_single_row_is_raised():
    def broken(x):
        class Broken(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, given):
                raise RuntimeError("no second derivative")

        return Broken.apply(x).sum()

    with pytest.raises(RuntimeError, match="no second derivative"):
        hessian_rows(broken, POSITIONS, DOFS, chunk=8)


def test_accelerators_take_several_rows_at_once():
    assert chunk_on(torch.device("cpu")) == 1
    assert chunk_on(torch.device("cuda", 0)) > 1
