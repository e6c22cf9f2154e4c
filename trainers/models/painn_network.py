"""The network of PaiNN: scalars and vectors on atoms, which messages and updates couple."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mlipdb.trainers.graph import AtomicGraph
from mlipdb.trainers.models.edges import lengths_and_directions, polynomial_cutoff
from mlipdb.trainers.models.painn_config import PainnConfig

ACTIVATION_NORM = 0.6  # about √E[silu(x)²] for x ~ N(0, 1), as published
NORM_EPSILON = 1e-8  # under the root of a vector's length, which has no derivative at 0 without it
LAYER_NORM_EPSILON = 1e-5
Matrix = Float[Array, "fan_in fan_out"]
Scalars = Float[Array, "atoms channels"]
Vectors = Float[Array, "atoms 3 channels"]


class Linear(eqx.Module):
    """A matrix and a bias."""

    matrix: Matrix
    bias: Float[Array, " fan_out"]

    def __call__(self, values: Float[Array, "rows fan_in"]) -> Float[Array, "rows fan_out"]:
        """The values times the matrix, plus the bias."""
        return jnp.matmul(values, self.matrix, precision="highest") + self.bias[None, :]


class Edges(NamedTuple):
    """What every layer uses of the edges. weight is 0 on padding edges, and multiplies all that an edge sends."""

    basis: Float[Array, "edges size"]
    directions: Float[Array, "edges 3"]
    weight: Float[Array, " edges"]
    senders: Int[Array, " edges"]
    receivers: Int[Array, " edges"]


class Message(eqx.Module):
    """What atoms take from their neighbours."""

    gain: Float[Array, " channels"]
    bias: Float[Array, " channels"]
    scalars: tuple[Linear, Linear]
    radial: Linear

    def __call__(self, scalars: Scalars, vectors: Vectors, edges: Edges) -> tuple[Scalars, Vectors]:
        """Both features with the neighbours' share added; scalars over √2."""
        channels, atoms = scalars.shape[1], len(scalars)
        sent = _perceptron(self.scalars, _layer_norm(scalars, self.gain, self.bias))
        products = sent[edges.senders] * (self.radial(edges.basis) * edges.weight[:, None])
        to_scalars, of_vectors, of_directions = jnp.split(products, 3, axis=1)
        moved = vectors[edges.senders] * (of_vectors / math.sqrt(3.0))[:, None, :]
        moved = (moved + of_directions[:, None, :] * edges.directions[:, :, None]) / math.sqrt(channels)
        taken = jax.ops.segment_sum(to_scalars, edges.receivers, atoms, indices_are_sorted=True)
        turned = jax.ops.segment_sum(moved, edges.receivers, atoms, indices_are_sorted=True)
        return (scalars + taken) / math.sqrt(2.0), vectors + turned


class Update(eqx.Module):
    """What scalars and vectors of one atom take from each other."""

    vectors: Matrix
    scalars: tuple[Linear, Linear]

    def __call__(self, scalars: Scalars, vectors: Vectors) -> tuple[Scalars, Vectors]:
        """Both features with each other's share added."""
        first, second = jnp.split(_mixed(vectors, self.vectors), 2, axis=2)
        product = (first * second).sum(axis=1) / math.sqrt(scalars.shape[1])
        known = jnp.concatenate([scalars, _lengths(second)], axis=1)
        alone, coupled, gates = jnp.split(_perceptron(self.scalars, known), 3, axis=1)
        return scalars + (alone + coupled * product) / math.sqrt(2.0), vectors + gates[:, None, :] * first


class GatedBlock(eqx.Module):
    """Fewer channels of both features; vectors are gated by scalars, so that they keep their symmetry."""

    lengths: Float[Array, "channels channels"]
    vectors: Float[Array, "channels fewer"]
    scalars: tuple[Linear, Linear]

    def __call__(
        self, scalars: Scalars, vectors: Vectors
    ) -> tuple[Float[Array, "atoms fewer"], Float[Array, "atoms 3 fewer"]]:
        """The features of the next block; vectors of the last one are the output."""
        known = jnp.concatenate([scalars, _lengths(_mixed(vectors, self.lengths))], axis=1)
        found, gates = jnp.split(_perceptron(self.scalars, known), 2, axis=1)
        return _activated(found), gates[:, None, :] * _mixed(vectors, self.vectors)


class Network(eqx.Module):
    """All arrays of a PaiNN; forces is empty where they are not an output."""

    embedding: Float[Array, "species channels"]
    messages: tuple[Message, ...]
    updates: tuple[Update, ...]
    energy: tuple[Linear, Linear]
    forces: tuple[GatedBlock, ...]


class Features(NamedTuple):
    """What atoms are after the last layer.

    variances are those of the scalars that each layer gives, before its factor, over real atoms.
    """

    scalars: Scalars
    vectors: Vectors
    variances: Float[Array, " layers"]


class Outputs(NamedTuple):
    """Energy of each atom and, of a direct model, its force, without units."""

    energies: Float[Array, " atoms"]
    forces: Float[Array, "atoms 3"] | None


def run(
    network: Network,
    graph: AtomicGraph,
    edge_vectors: Float[Array, "edges 3"],
    *,
    config: PainnConfig,
    factors: Sequence[float] | Float[Array, " layers"],
) -> Features:
    """All layers, with a scale factor after each."""
    edges = _edges(graph, edge_vectors, config)
    scalars = network.embedding[_ranks(graph.atomic_numbers, config.atomic_numbers)]
    vectors = jnp.zeros((len(scalars), 3, config.hidden_size), dtype=scalars.dtype)
    variances = []
    for layer, (message, update) in enumerate(zip(network.messages, network.updates, strict=True)):
        scalars, vectors = update(*message(scalars, vectors, edges))
        variances.append(_variance(scalars, graph))
        scalars = scalars * factors[layer]
    return Features(scalars, vectors, jnp.stack(variances))


def read(network: Network, features: Features) -> Outputs:
    """The outputs of the network from its features."""
    energies = _perceptron(network.energy, features.scalars)[:, 0]
    left, force = features.scalars, features.vectors
    for block in network.forces:
        left, force = block(left, force)
    return Outputs(energies, force[:, :, 0] if network.forces else None)


def create_network(config: PainnConfig, *, key: PRNGKeyArray) -> Network:
    """Random matrices, uniform with variance 2/(fan in + fan out); biases 0, embeddings uniform with variance 1."""
    size, half = config.hidden_size, config.hidden_size // 2
    embedding_key, energy_key, forces_key, *layer_keys = jax.random.split(key, 3 + 2 * config.n_layers)
    bound = math.sqrt(3.0)
    force_keys = jax.random.split(forces_key, 2)
    return Network(
        embedding=jax.random.uniform(embedding_key, (len(config.atomic_numbers), size), minval=-bound, maxval=bound),
        messages=tuple(_create_message(config, key=one) for one in layer_keys[::2]),
        updates=tuple(_create_update(config, key=one) for one in layer_keys[1::2]),
        energy=_create_perceptron((size, half, 1), key=energy_key),
        forces=(
            (_create_gated(size, half, key=force_keys[0]), _create_gated(half, 1, key=force_keys[1]))
            if config.direct
            else ()
        ),
    )


def _create_message(config: PainnConfig, *, key: PRNGKeyArray) -> Message:
    size = config.hidden_size
    scalars_key, radial_key = jax.random.split(key)
    return Message(
        gain=jnp.ones(size),
        bias=jnp.zeros(size),
        scalars=_create_perceptron((size, size, 3 * size), key=scalars_key),
        radial=Linear(_create_matrix((config.n_radial, 3 * size), key=radial_key), jnp.zeros(3 * size)),
    )


def _create_update(config: PainnConfig, *, key: PRNGKeyArray) -> Update:
    size = config.hidden_size
    vectors_key, scalars_key = jax.random.split(key)
    return Update(
        vectors=_create_matrix((size, 2 * size), key=vectors_key),
        scalars=_create_perceptron((2 * size, size, 3 * size), key=scalars_key),
    )


def _create_gated(size: int, out: int, *, key: PRNGKeyArray) -> GatedBlock:
    lengths_key, vectors_key, scalars_key = jax.random.split(key, 3)
    return GatedBlock(
        lengths=_create_matrix((size, size), key=lengths_key),
        vectors=_create_matrix((size, out), key=vectors_key),
        scalars=_create_perceptron((2 * size, size, 2 * out), key=scalars_key),
    )


def _create_perceptron(sizes: tuple[int, int, int], *, key: PRNGKeyArray) -> tuple[Linear, Linear]:
    first, second = jax.random.split(key)
    return (
        Linear(_create_matrix(sizes[:2], key=first), jnp.zeros(sizes[1])),
        Linear(_create_matrix(sizes[1:], key=second), jnp.zeros(sizes[2])),
    )


def _create_matrix(shape: tuple[int, ...], *, key: PRNGKeyArray) -> Matrix:
    bound = math.sqrt(6.0 / (shape[0] + shape[1]))
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _edges(graph: AtomicGraph, vectors: Float[Array, "edges 3"], config: PainnConfig) -> Edges:
    lengths, directions = lengths_and_directions(vectors)
    envelope = polynomial_cutoff(lengths, cutoff=config.cutoff, power=float(config.envelope_exponent))
    weight = envelope if config.smooth_messages else jnp.ones_like(envelope)
    return Edges(
        basis=_gaussians(lengths / config.cutoff, size=config.n_radial) * envelope[:, None],
        directions=directions,
        weight=jnp.where(graph.edge_mask, weight, 0.0),
        senders=graph.senders,
        receivers=graph.receivers,
    )


def _gaussians(x: Float[Array, " edges"], *, size: int) -> Float[Array, "edges size"]:
    """exp(-½((x - μ)/Δ)²) with μ from 0 to 1 in steps of Δ."""
    centres = jnp.asarray(np.arange(size), dtype=x.dtype)
    return jnp.exp(-0.5 * jnp.square(x[:, None] * (size - 1) - centres[None, :]))


def _ranks(numbers: Int[Array, " atoms"], known: tuple[int, ...]) -> Int[Array, " atoms"]:
    """Row of each atom in the embedding; padding atoms take the first."""
    rank = np.zeros(119, dtype=np.int32)
    rank[list(known)] = np.arange(len(known))
    return jnp.asarray(rank)[numbers]


def _perceptron(layers: tuple[Linear, Linear], values: Float[Array, "rows fan_in"]) -> Float[Array, "rows fan_out"]:
    return layers[1](_activated(layers[0](values)))


def _activated(values: Float[Array, "rows size"]) -> Float[Array, "rows size"]:
    return jax.nn.silu(values) / ACTIVATION_NORM


def _mixed(vectors: Float[Array, "atoms 3 fan_in"], matrix: Matrix) -> Float[Array, "atoms 3 fan_out"]:
    return jnp.matmul(vectors, matrix, precision="highest")


def _lengths(vectors: Vectors) -> Scalars:
    return jnp.sqrt(jnp.square(vectors).sum(axis=1) + NORM_EPSILON)


def _layer_norm(values: Scalars, gain: Float[Array, " channels"], bias: Float[Array, " channels"]) -> Scalars:
    centred = values - values.mean(axis=1, keepdims=True)
    variance = jnp.square(centred).mean(axis=1, keepdims=True)
    return centred / jnp.sqrt(variance + LAYER_NORM_EPSILON) * gain[None, :] + bias[None, :]


def _variance(scalars: Scalars, graph: AtomicGraph) -> Float[Array, ""]:
    """Over real atoms and all channels."""
    number = jnp.maximum(graph.atom_mask.sum(), 1).astype(scalars.dtype) * scalars.shape[1]
    shown = jnp.where(graph.atom_mask[:, None], scalars, 0.0)
    mean = shown.sum() / number
    return jnp.where(graph.atom_mask[:, None], jnp.square(scalars - mean), 0.0).sum() / number
