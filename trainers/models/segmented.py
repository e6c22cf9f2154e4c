"""The convolution by cuEquivariance, which gathers, couples and adds up in one kernel, without messages in memory."""

import itertools
import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mlipdb.trainers.models.convolution import EdgeFeatures, hidden_layer
from mlipdb.trainers.models.features import Features, Matrices
from mlipdb.trainers.models.paths import Path, channels_of, coupling, group_by_input


def convolve_segmented(
    features: Features, edges: EdgeFeatures, radial: Matrices, *, paths: tuple[Path, ...]
) -> Features:
    """What convolve gives, from the same arrays: same scales, and channels in the same order.

    On a CPU it is cuEquivariance's plain JAX, all edges at once: slow, and there to be tested.
    """
    import cuequivariance_jax

    weights = jnp.matmul(hidden_layer(edges.radial, radial[:-1]), radial[-1], precision="highest")
    flat = [values.reshape(len(values), -1) for _, values in sorted(features.items())]
    result = jax.ShapeDtypeStruct((len(flat[0]), -1), weights.dtype)  # type: ignore[no-untyped-call]  # JAX's own
    [sums] = cuequivariance_jax.segmented_polynomial(
        _polynomial(paths, harmonics=edges.harmonics.shape[1]),
        [weights, jnp.concatenate(flat, axis=1), edges.harmonics],
        [result],
        [None, edges.senders, None, edges.receivers],
        method="naive" if jax.default_backend() == "cpu" else "uniform_1d",
    )
    return _by_degree(sums, channels_of(paths))


def _by_degree(flat: Float[Array, "atoms size"], channels: tuple[int, ...]) -> Features:
    found, starts = {}, _starts(channels)
    for degree in filter(channels.__getitem__, range(len(channels))):
        values = flat[:, starts[degree] : starts[degree + 1]]
        found[degree] = values.reshape(len(flat), 2 * degree + 1, channels[degree])
    return found


def _starts(channels: tuple[int, ...]) -> list[int]:
    """Where each degree starts where all stand one after another, components first; then the end."""
    sizes = [(2 * degree + 1) * count for degree, count in enumerate(channels)]
    return [sum(sizes[:degree]) for degree in range(len(sizes) + 1)]


@cache
def _polynomial(paths: tuple[Path, ...], *, harmonics: int) -> Any:
    """Weights times features times harmonics, summed into the result.

    The kernel wants pieces of one size: as many channels as divide those of every path. Of the published 128, 64, 32
    and 32 channels these are 4, 2, 1 and 1 pieces.
    """
    from cuequivariance import SegmentedOperand, SegmentedPolynomial, SegmentedTensorProduct

    size = math.gcd(*(path.channels for path in paths))
    inputs = {degree: group[0].channels // size for degree, group in group_by_input(paths).items()}
    pieces_in = tuple(inputs.get(degree, 0) for degree in range(max(inputs) + 1))
    pieces_out = tuple(count // size for count in channels_of(paths))
    counts = (sum(path.channels for path in paths) // size, _starts(pieces_in)[-1], _starts(pieces_out)[-1])
    weights, features, result = (SegmentedOperand([(size,)] * count) for count in counts)
    product = SegmentedTensorProduct(
        [(weights, "u"), (features, "u"), (SegmentedOperand([()] * harmonics), ""), (result, "u")],
        paths=_terms(paths, size, pieces_in, pieces_out),
    )
    return SegmentedPolynomial.eval_last_operand(product)


def _terms(paths: tuple[Path, ...], size: int, pieces_in: tuple[int, ...], pieces_out: tuple[int, ...]) -> list[Any]:
    """One term for each coefficient and piece: pieces of weights, features and result, the harmonic, the number."""
    from cuequivariance.segmented_polynomials import Path as Term

    terms, first_weight, columns = [], 0, [0] * len(pieces_out)
    starts_in, starts_out = _starts(pieces_in), _starts(pieces_out)
    for path in paths:
        coefficients, pieces = coupling(path.l_in, path.l_edge, path.l_out), path.channels // size
        for (i, j, k), piece in itertools.product(np.argwhere(coefficients), range(pieces)):
            feature = starts_in[path.l_in] + i * pieces_in[path.l_in] + piece
            result = starts_out[path.l_out] + k * pieces_out[path.l_out] + columns[path.l_out] + piece
            places = (first_weight + piece, feature, path.l_edge**2 + j, result)
            terms.append(Term(places, path.scale * coefficients[i, j, k]))
        first_weight += pieces
        columns[path.l_out] += pieces
    return terms
