"""Muon: momentum whose matrices are orthogonalised by Newton-Schulz iterations (Jordan 2024).

The numbers and the state are those of optax.contrib.muon, so checkpoints of either serve both. Optax's own takes
longer to compile: it writes the iterations out for every matrix, and turns matrices that are taller than wide.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

Matrix = Float[Array, "*stack fan_in fan_out"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95


def scale_by_muon(epsilon: float) -> optax.GradientTransformation:
    """Gradients of matrices to orthogonalised Nesterov momentum times √max(1, out/in).

    Matrices are stored (in, out), possibly stacked along leading axes. epsilon is added to the Frobenius norm by which
    each is divided.
    """

    def init(parameters: PyTree) -> Any:
        mean = jax.tree.map(jnp.zeros_like, parameters)
        return optax.contrib.MuonState(jnp.zeros((), jnp.int32), mean, jnp.asarray(COEFFICIENTS))

    def update(gradient: PyTree, state: Any, parameters: PyTree = None) -> tuple[PyTree, Any]:
        steps = state.count + 1
        taken = steps.astype(jnp.float32)
        here, ahead = 1.0 - MOMENTUM**taken, 1.0 - MOMENTUM ** (taken + 1.0)  # the averages start from zero
        mean = jax.tree.map(lambda old, new: MOMENTUM * old + (1.0 - MOMENTUM) * new, state.mu, gradient)
        moved = jax.tree.map(lambda m, g: MOMENTUM * m / ahead + (1.0 - MOMENTUM) * g / here, mean, gradient)
        updates = jax.tree.map(
            lambda matrix: orthogonalised(matrix, state.ns_coeffs, epsilon=epsilon) * _growth(matrix), moved
        )
        return updates, optax.contrib.MuonState(steps, mean, state.ns_coeffs)

    return optax.GradientTransformation(init, update)


def orthogonalised(matrix: Matrix, coefficients: Float[Array, "3"], *, epsilon: float) -> Matrix:
    """The matrix with singular values near 1: between about 0.7 and 1.2, or less where they were next to nothing.

    Products are of the shorter side, whichever it is, and the iterations are a loop: both for the compiler's sake.
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    gram = "...ki,...kj->...ij" if tall else "...ik,...jk->...ij"
    applied = "...ki,...ij->...kj" if tall else "...jk,...ij->...ik"
    first, second, third = coefficients

    def iterate(_: Any, x: Matrix) -> Matrix:
        squares = jnp.einsum(gram, x, x)
        changed: Matrix = first * x + jnp.einsum(applied, x, second * squares + third * (squares @ squares))
        return changed

    norm = jnp.sqrt(jnp.square(matrix).sum(axis=(-2, -1), keepdims=True))
    found: Matrix = jax.lax.fori_loop(0, ITERATIONS, iterate, matrix / (norm + epsilon))
    return found


def _growth(matrix: Matrix) -> float:
    """A wide matrix, of more outputs than inputs, takes longer steps."""
    fan_in, fan_out = matrix.shape[-2:]
    return float(max(1.0, fan_out / fan_in) ** 0.5)
