"""Rows of the Hessian by torch's autograd, for every structure of a batch at once.

The graphs of a batch are independent, so one backward pass through the gradient with a one for one degree of freedom of
each structure gives one row of each.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int32

ACCELERATOR_CHUNK = 8  # rows of one backward pass there; on a processor a batched pass is no quicker than its rows
NONE = -1  # in dofs: this structure asks for no more rows


def batch_dofs(
    sizes: Sequence[int], row_numbers: Sequence[Int32[np.ndarray, " _"]]
) -> Int32[np.ndarray, "rows structures"]:
    """Row numbers of each structure as degrees of freedom of the whole batch; NONE where a structure asks for no more.

    sizes are the numbers of atoms. There are as many rows as the greediest structure asks for.
    """
    dofs = np.full((max(map(len, row_numbers), default=0), len(sizes)), NONE, dtype=np.int32)
    first = 0
    for place, (size, numbers) in enumerate(zip(sizes, row_numbers, strict=True)):
        dofs[: len(numbers), place] = 3 * first + numbers
        first += size
    return dofs


def chunk_on(device: torch.device) -> int:
    """Rows of one backward pass on a device."""
    return 1 if device.type == "cpu" else ACCELERATOR_CHUNK


def hessian_rows(
    energy_of: Callable[[torch.Tensor], torch.Tensor],
    positions: Float[torch.Tensor, "atoms 3"],
    dofs: Int32[np.ndarray, "rows structures"],
    *,
    chunk: int = 1,
) -> Float64[np.ndarray, "rows atoms 3"]:
    """+d²E/dx_r dx of a batch; energy_of gives the energies of all its structures, in one tensor of any shape.

    In row k stand the derivatives by each atom of the energy's derivative by dofs[k, s], s being the atom's structure.
    """
    leaf = positions.detach().requires_grad_(True)
    energy = energy_of(leaf).sum()
    if not energy.requires_grad:  # no atom has a neighbour
        return np.zeros((len(dofs), *positions.shape))
    (gradient,) = torch.autograd.grad(energy, leaf, create_graph=True, materialize_grads=True)
    return gradient_rows(gradient, leaf, dofs, chunk=chunk)


def gradient_rows(
    gradient: Float[torch.Tensor, "atoms 3"],
    positions: Float[torch.Tensor, "atoms 3"],
    dofs: Int32[np.ndarray, "rows structures"],
    *,
    chunk: int = 1,
) -> Float64[np.ndarray, "rows atoms 3"]:
    """The same from dE/dx that was made with create_graph, positions being what it was derived by.

    chunk rows are computed in one batched backward pass: that is quicker on an accelerator, and holds so many graphs of
    the second derivative at a time. The rows leave the device chunk by chunk, so that memory does not grow with their
    number. Where an operation of the model cannot be batched, or so many graphs do not fit, rows go one by one.
    """
    rows = np.zeros((len(dofs), *positions.shape))
    if not gradient.requires_grad:
        return rows
    flat, start = gradient.reshape(-1), 0
    while start < len(dofs):
        part = slice(start, start + chunk)
        try:
            rows[part] = _backward(flat, positions, _ones(flat, dofs[part])).detach().cpu().numpy()
        except RuntimeError:
            if chunk == 1:
                raise
            chunk = 1
        else:
            start += chunk
    return rows


def _ones(
    flat: Float[torch.Tensor, " degrees"], dofs: Int32[np.ndarray, "rows structures"]
) -> Float[torch.Tensor, "rows degrees"]:
    """A one for each degree of freedom that a row asks for."""
    ones = torch.zeros((len(dofs), len(flat)), dtype=flat.dtype)
    asked, _ = np.nonzero(dofs != NONE)
    ones[asked, dofs[dofs != NONE].astype(np.int64)] = 1.0
    return ones.to(flat.device)


def _backward(
    flat: Float[torch.Tensor, " degrees"],
    positions: Float[torch.Tensor, "atoms 3"],
    ones: Float[torch.Tensor, "rows degrees"],
) -> Float[torch.Tensor, "rows atoms 3"]:
    """One backward pass; the graph is kept for the next."""
    if len(ones) == 1:
        (found,) = torch.autograd.grad(flat, positions, ones[0], retain_graph=True, materialize_grads=True)
        return found[None]
    (found,) = torch.autograd.grad(
        flat, positions, ones, retain_graph=True, materialize_grads=True, is_grads_batched=True
    )
    return found
