"""What happens to the features of an atom between convolutions: linear maps, norm, gate."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

NORM_EPSILON = 1e-12
# features[l] has the 2l+1 components of each channel of degree l, channels last; degrees without channels are absent
Features = dict[int, Float[Array, "atoms _ _"]]
# All degrees side by side in ascending order, each with its components one after another and their channels fastest:
# what works on every number alike is then one loop to compile instead of one a degree
Flat = Float[Array, "atoms size"]
Matrix = Float[Array, "fan_in fan_out"]
Matrices = tuple[Float[Array, "_ _"], ...]
Gains = tuple[Float[Array, " _"], ...]


def ungated_channels(channels: tuple[int, ...]) -> tuple[int, ...]:
    """Channels before the gate: one scalar more for every channel of a higher degree."""
    return (sum(channels), *channels[1:])


def linear(features: Features, matrices: Matrices, *, degrees: Sequence[int]) -> Features:
    """Mix the channels of each of the degrees by its own matrix; other degrees are dropped. Nothing is scaled."""
    return {
        degree: jnp.matmul(features[degree], matrix, precision="highest")
        for degree, matrix in zip(degrees, matrices, strict=True)
    }


def over_fan_in(matrix: Matrix) -> Matrix:
    """The matrix over √fan_in."""
    return matrix / math.sqrt(len(matrix))


def added(left: Features, right: Features) -> Features:
    """The sum, where a degree that only one side has is that side's."""
    common = {degree: left[degree] + right[degree] for degree in left.keys() & right.keys()}
    return dict(sorted((left | right | common).items()))


def normalise(features: Features, gains: Gains) -> Flat:
    """Divide by one norm of all degrees, times a gain for each channel; gains in ascending degree.

    The square of the norm is the mean over degrees of Σ_channels (mean over components) / (2l+1). Published weights
    need it so; an average over channels would look more natural, and is why trained gains are five to seven.
    """
    degrees = [np.full(values[0].size, degree) for degree, values in features.items()]
    shares = 1.0 / (len(degrees) * (2 * np.concatenate(degrees) + 1) ** 2)
    flat = jnp.concatenate([values.reshape(len(values), -1) for values in features.values()], axis=1)
    square = (jnp.square(flat) * jnp.asarray(shares[None], flat.dtype)).sum(axis=1, keepdims=True)
    spread = [jnp.tile(gain, 2 * degree + 1) for degree, gain in zip(features, gains, strict=True)]
    return flat * jax.lax.rsqrt(square + NORM_EPSILON) * jnp.concatenate(spread)[None]


def gate(features: Flat, channels: tuple[int, ...], *, activation_norm: float) -> Features:
    """Activate the scalars; multiply each channel of a higher degree by an activated scalar of its own.

    The activation of both is silu over activation_norm. Scalars come first, then the gates in ascending degree.
    """
    degrees = [degree for degree, count in enumerate(channels) if count]
    sizes = [(2 * degree + 1) * channels[degree] for degree in degrees[1:]]
    scalars, others = jax.lax.split(features, [sum(channels), sum(sizes)], axis=1)
    activated = jax.nn.silu(scalars) / activation_norm
    scalars, *gates = jax.lax.split(activated, [channels[degree] for degree in degrees], axis=1)
    if not gates:
        return {0: scalars[:, None, :]}
    spread = [gate for degree, gate in zip(degrees[1:], gates, strict=True) for _ in range(2 * degree + 1)]
    parts = [scalars, *jax.lax.split(others * jnp.concatenate(spread, axis=1), sizes, axis=1)]
    return {degree: part.reshape(len(part), 2 * degree + 1, -1) for degree, part in zip(degrees, parts, strict=True)}
