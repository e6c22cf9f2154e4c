"""What a convolution knows of an edge: its length in a radial basis, its direction in spherical harmonics."""

from functools import cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from mlipdb.trainers.models.paths import coupling


def lengths_and_directions(
    vectors: Float[Array, "edges 3"],
) -> tuple[Float[Array, " edges"], Float[Array, "edges 3"]]:
    """Length and unit vector of each edge; both 0, with zero derivatives, where the vector is zero."""
    squares = (vectors * vectors).sum(axis=1)
    proper = squares > 0
    lengths = jnp.sqrt(jnp.where(proper, squares, 1.0))
    return jnp.where(proper, lengths, 0.0), vectors / lengths[:, None]


def bessel(lengths: Float[Array, " edges"], *, cutoff: float, size: int) -> Float[Array, "edges size"]:
    """(2/rc)·sin(nπ r/rc)/r for n = 1…size, in 1/Å; its limit (2/rc)·nπ/rc at r = 0."""
    frequencies = jnp.asarray(np.arange(1, size + 1) * np.pi / cutoff, dtype=lengths.dtype)
    proper = lengths[:, None] > 0
    safe = jnp.where(proper, lengths[:, None], 1.0)
    ratio = jnp.sin(frequencies[None, :] * safe) / safe
    return 2.0 / cutoff * jnp.where(proper, ratio, frequencies[None, :])


def polynomial_cutoff(lengths: Float[Array, " edges"], *, cutoff: float, power: float) -> Float[Array, " edges"]:
    """One at r = 0, falling to zero at the cutoff with its first two derivatives; zero beyond."""
    x = lengths / cutoff
    lowest = x ** (int(power) if power == int(power) else power)  # whole powers are products: exact and cheap
    falling = 1.0 - lowest * (
        (power + 1.0) * (power + 2.0) / 2.0 - power * (power + 2.0) * x + power * (power + 1.0) / 2.0 * x * x
    )
    return jnp.where(x < 1.0, falling, 0.0)


def spherical_harmonics(directions: Float[Array, "edges 3"], *, lmax: int) -> list[Float[Array, "edges _"]]:
    """Real harmonics of degrees 0 to lmax with Σ_m Y_lm² = 2l + 1; those of degree 1 are √3·(x, y, z).

    Each degree is the coupling of the one below with the first, scaled. A zero direction gives zero but for l = 0.
    """
    harmonics = [jnp.ones((len(directions), 1), dtype=directions.dtype)]
    for degree in range(1, lmax + 1):
        step = jnp.asarray(_recursion(degree), dtype=directions.dtype)
        harmonics.append(_couple(directions, harmonics[-1], step))
    return harmonics


def _couple(
    left: Float[Array, "edges i"], right: Float[Array, "edges j"], coefficients: Float[Array, "i j k"]
) -> Float[Array, "edges k"]:
    """Σ_ij C_ijk a_i b_j as one matrix product, which derivatives of any order keep."""
    products = (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)
    return jnp.matmul(products, coefficients.reshape(products.shape[1], -1), precision="highest")


@cache
def _recursion(degree: int) -> Float64[np.ndarray, "i j k"]:
    """Coefficients that make degree l from a unit vector and degree l - 1, with Σ_m Y_lm² = 2l + 1."""
    step = coupling(1, degree - 1, degree)
    below = np.ones(1)
    direction = np.array([0.36, 0.48, 0.8])
    for lower in range(1, degree):
        below = np.einsum("i,j,ijk->k", direction, below, _recursion(lower))
    made = np.einsum("i,j,ijk->k", direction, below, step)
    scaled: Float64[np.ndarray, "i j k"] = step * np.sqrt((2 * degree + 1) / np.square(made).sum())
    return scaled
