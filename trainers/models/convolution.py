"""The equivariant convolution: features of neighbours times harmonics times radial weights, summed onto atoms."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mlipdb.trainers.models.features import Features
from mlipdb.trainers.models.paths import Path, coupling


class EdgeFeatures(NamedTuple):
    """What every layer uses of the edges. receivers ascend; radial is 0 on padding edges."""

    radial: Float[Array, "edges size"]
    harmonics: list[Float[Array, "edges m"]]
    senders: Int[Array, " edges"]
    receivers: Int[Array, " edges"]


def convolve(
    features: Features, edges: EdgeFeatures, weights: Float[Array, "edges numbers"], *, paths: Sequence[Path]
) -> Features:
    """Sum over each atom's edges of the coupling of the sender's features with the edge's harmonics, path by path.

    In the result the channels of the paths into one degree stand side by side, in the order of paths. weights has one
    column for each of them, and is 0 on padding edges.
    """
    atoms = len(features[0])
    sent = {degree: values[edges.senders] for degree, values in features.items()}
    messages: dict[int, list[Array]] = {path.l_out: [] for path in paths}
    start = 0
    for path in paths:
        column = weights[:, None, start : start + path.channels]
        messages[path.l_out].append(_product(sent[path.l_in], edges.harmonics[path.l_edge], path) * column)
        start += path.channels
    return {degree: _onto_receivers(parts, edges.receivers, atoms) for degree, parts in messages.items()}


def _product(
    sent: Float[Array, "edges m channels"], harmonics: Float[Array, "edges k"], path: Path
) -> Float[Array, "edges n channels"]:
    coefficients = jnp.asarray(coupling(path.l_in, path.l_edge, path.l_out), dtype=harmonics.dtype)
    turned = jnp.einsum("ej,ijk->eik", harmonics, coefficients, precision="highest")
    return jnp.einsum("eiu,eik->eku", sent, turned, precision="highest")


def _onto_receivers(
    messages: Sequence[Float[Array, "edges m _"]], receivers: Int[Array, " edges"], atoms: int
) -> Float[Array, "atoms m channels"]:
    return jax.ops.segment_sum(jnp.concatenate(messages, axis=2), receivers, atoms, indices_are_sorted=True)
