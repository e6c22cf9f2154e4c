"""Layers of GemNet: matrices without bias, and the ways they are put together."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

ACTIVATION_NORM = 0.6  # about √E[silu(x)²] for x ~ N(0, 1), as published
STANDARD_EPSILON = 1e-6
Matrix = Float[Array, "_ _"]  # (in, out)
Rows = Float[Array, "rows _"]


class Mlp(eqx.Module):
    """An activated matrix, where there is one, then residual layers of two activated matrices each."""

    first: Matrix | None
    residuals: tuple[tuple[Matrix, Matrix], ...]

    def __call__(self, values: Rows) -> Rows:
        """The values after all layers; 0 stays 0, since there is no bias."""
        if self.first is not None:
            values = activated(values, self.first)
        for inner, outer in self.residuals:
            values = halved(values, activated(activated(values, inner), outer))
        return values


def linear(values: Rows, matrix: Matrix) -> Rows:
    """The values times the matrix."""
    return jnp.matmul(values, matrix, precision="highest")


def activated(values: Rows, matrix: Matrix) -> Rows:
    """The values times the matrix, through a silu scaled to keep the variance."""
    return jax.nn.silu(linear(values, matrix)) / ACTIVATION_NORM


def halved(left: Rows, right: Rows) -> Rows:
    """The sum over √2, which keeps the variance of two that are independent."""
    return (left + right) / math.sqrt(2.0)


def create_mlp(fan_in: int | None, size: int, *, residuals: int, key: PRNGKeyArray) -> Mlp:
    """Random matrices; fan_in None leaves the first one out."""
    keys = jax.random.split(key, 2 * residuals + 1)
    pairs = zip(keys[1::2], keys[2::2], strict=True)
    return Mlp(
        first=None if fan_in is None else he_orthogonal(keys[0], (fan_in, size)),
        residuals=tuple((he_orthogonal(a, (size, size)), he_orthogonal(b, (size, size))) for a, b in pairs),
    )


def he_orthogonal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """An orthogonal matrix with, for each output (last axis), mean 0 and variance 1/fan_in over its inputs."""
    if len(shape) == 2:
        random = jax.nn.initializers.orthogonal()(key, shape)
    else:
        random = jax.nn.initializers.orthogonal()(key, (shape[0], math.prod(shape[1:]))).reshape(shape)
    inputs: Any = tuple(range(len(shape) - 1))
    centred = random - random.mean(axis=inputs, keepdims=True)
    spread = jnp.sqrt(random.var(axis=inputs, ddof=1, keepdims=True) + STANDARD_EPSILON)
    return centred / spread / math.sqrt(math.prod(shape[:-1]))
