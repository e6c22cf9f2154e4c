"""What happens to the features of an atom between convolutions: linear maps, norm, gate."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NORM_EPSILON = 1e-12
# features[l] has the 2l+1 components of each channel of degree l, channels last; degrees without channels are absent
Features = dict[int, Float[Array, "atoms _ _"]]
Matrix = Float[Array, "fan_in fan_out"]
Matrices = tuple[Float[Array, "_ _"], ...]
Gains = tuple[Float[Array, " _"], ...]


def ungated_channels(channels: tuple[int, ...]) -> tuple[int, ...]:
    """Channels before the gate: one scalar more for every channel of a higher degree."""
    return (sum(channels), *channels[1:])


def linear(features: Features, matrices: Matrices, *, degrees: Sequence[int]) -> Features:
    """Mix the channels of each of the degrees by its own matrix over √fan_in; other degrees are dropped."""
    return {degree: mix(features[degree], matrix) for degree, matrix in zip(degrees, matrices, strict=True)}


def mix(values: Float[Array, "atoms m fan_in"], matrix: Matrix) -> Float[Array, "atoms m fan_out"]:
    """The channels of one degree times a matrix over √fan_in."""
    return jnp.matmul(values, matrix / math.sqrt(len(matrix)), precision="highest")


def added(left: Features, right: Features) -> Features:
    """The sum, where a degree that only one side has is that side's."""
    common = {degree: left[degree] + right[degree] for degree in left.keys() & right.keys()}
    return dict(sorted((left | right | common).items()))


def normalise(features: Features, gains: Gains) -> Features:
    """Divide by one norm of all degrees, times a gain for each channel; gains in ascending degree.

    The square of the norm is the mean over degrees of Σ_channels (mean over components) / (2l+1). Published weights
    need it so; an average over channels would look more natural, and is why trained gains are five to seven.
    """
    parts = [jnp.square(values).sum(axis=(1, 2)) / values.shape[1] ** 2 for values in features.values()]
    factor = jax.lax.rsqrt(sum(parts[1:], start=parts[0]) / len(parts) + NORM_EPSILON)[:, None, None]
    return {
        degree: values * factor * gain[None, None, :]
        for (degree, values), gain in zip(sorted(features.items()), gains, strict=True)
    }


def gate(features: Features, channels: tuple[int, ...], *, activation_norm: float) -> Features:
    """Activate the scalars; multiply each channel of a higher degree by an activated scalar of its own.

    The activation of both is silu over activation_norm. Scalars come first, then the gates in ascending degree.
    """
    activated = jax.nn.silu(features[0]) / activation_norm
    ends = list(itertools.accumulate(channels))
    gates = {degree: activated[:, :, ends[degree] - channels[degree] : ends[degree]] for degree in features}
    return {degree: gates[degree] * features[degree] if degree else gates[0] for degree in features}
