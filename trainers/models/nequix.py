"""Nequix: equivariant message passing with separate radial weights per path, normalised layers and gates."""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, PRNGKeyArray

from mlipdb.errors import ConfigError
from mlipdb.trainers.graph import AtomicGraph, GraphNeeds
from mlipdb.trainers.models.base import AbstractForceField, AbstractTrunked, with_static
from mlipdb.trainers.models.config import read_settings
from mlipdb.trainers.models.convolution import EdgeFeatures, convolve, count_chunks, in_chunks
from mlipdb.trainers.models.edges import bessel, lengths_and_directions, polynomial_cutoff, spherical_harmonics
from mlipdb.trainers.models.features import (
    Features,
    Gains,
    Matrices,
    Matrix,
    added,
    gate,
    linear,
    normalise,
    over_fan_in,
    ungated_channels,
)
from mlipdb.trainers.models.paths import Path, channels_of, coupled_paths, parse_irreps, shared_degrees
from mlipdb.trainers.models.segmented import convolve_segmented

PLAIN, CUEQUIVARIANCE = "plain", "cuequivariance"
CONVOLUTIONS = {PLAIN: convolve, CUEQUIVARIANCE: convolve_segmented}

# √E[silu(x)²] for x ~ N(0, 1) is 0.59647; published weights were trained with this value, which their package
# integrates numerically at run time, so that it differs in the fifth digit from one JAX version to the next.
PUBLISHED_ACTIVATION_NORM = 0.596460


@dataclass(frozen=True, kw_only=True)
class NequixConfig:
    """Everything of a Nequix but its arrays.

    cutoff Å; e0 eV for each of atomic_numbers (ascending); atomic energies are the readout times scale plus shift, in
    eV; avg_n_neighbors divides the sums over edges. e0, scale, shift and avg_n_neighbors come from statistics of the
    training set and are never trained.
    """

    atomic_numbers: tuple[int, ...]
    e0: tuple[float, ...]
    hidden_irreps: str = "128x0e + 64x1o + 32x2e + 32x3o"
    lmax: int = 3
    n_layers: int = 4
    cutoff: float = 6.0
    radial_basis_size: int = 8
    radial_mlp_size: int = 64
    radial_mlp_layers: int = 2
    radial_polynomial_p: float = 6.0
    mlp_init_scale: float = 4.0
    scale: float = 1.0
    shift: float = 0.0
    avg_n_neighbors: float = 1.0
    activation_norm: float = PUBLISHED_ACTIVATION_NORM

    def __post_init__(self) -> None:
        numbers = list(self.atomic_numbers)
        if not numbers or numbers != sorted(set(numbers)) or not 0 < numbers[0] <= numbers[-1] < 119:
            raise ConfigError(f"atomic_numbers must ascend within 1 to 118, each once; got {numbers}")
        if len(self.e0) != len(numbers):
            raise ConfigError(f"e0 has {len(self.e0)} values for {len(numbers)} elements; give one each")
        above_zero = (
            "n_layers",
            "radial_basis_size",
            "radial_mlp_size",
            "cutoff",
            "avg_n_neighbors",
            "activation_norm",
        )
        for name in above_zero:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0; got {getattr(self, name)}")
        highest = len(parse_irreps(self.hidden_irreps)) - 1
        if highest > self.lmax:
            raise ConfigError(f"hidden_irreps {self.hidden_irreps!r} go to degree {highest}, above lmax {self.lmax}")

    @property
    def layer_channels(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Channels of each degree into and out of each layer; the last gives scalars only."""
        hidden = parse_irreps(self.hidden_irreps)
        ends = [(len(self.atomic_numbers),), *[hidden] * (self.n_layers - 1), hidden[:1]]
        return list(itertools.pairwise(ends))


class NequixLayer(eqx.Module):
    """One convolution with its radial network, linear maps, norm and gate.

    Matrices are stored (in, out): those of linear_in, skip and linear_out one for each degree that both of their sides
    have, in ascending degree.
    """

    radial: Matrices
    linear_in: Matrices
    linear_out: Matrices
    skip: Matrices
    gains: Gains
    channels_in: tuple[int, ...] = eqx.field(static=True)
    channels_out: tuple[int, ...] = eqx.field(static=True)
    lmax: int = eqx.field(static=True)

    def paths(self, config: NequixConfig) -> tuple[Path, ...]:
        """What the convolution couples.

        It is scaled by 1/√fan_in of both linear maps around it and by 1/√(average number of neighbours).
        """
        paths = coupled_paths(self.channels_in, lmax=self.lmax, channels_out=self.channels_out)
        fans, mean = channels_of(paths), config.avg_n_neighbors
        scales = [1.0 / math.sqrt(self.channels_in[path.l_in] * fans[path.l_out] * mean) for path in paths]
        return tuple(dataclasses.replace(path, scale=scale) for path, scale in zip(paths, scales, strict=True))

    def __call__(self, carried: Features, edges: EdgeFeatures, *, config: NequixConfig, kernel: str) -> Features:
        """The features after one round of messages."""
        paths = self.paths(config)
        sent = linear(carried, self.linear_in, degrees=shared_degrees(self.channels_in, self.channels_in))
        received = CONVOLUTIONS[kernel](sent, edges, self.radial, paths=paths)
        skip = tuple(map(over_fan_in, self.skip))
        mixed = added(
            linear(received, self.linear_out, degrees=shared_degrees(channels_of(paths), self.channels_out)),
            linear(carried, skip, degrees=shared_degrees(self.channels_in, self.channels_out)),
        )
        return gate(normalise(mixed, self.gains), self.channels_out, activation_norm=config.activation_norm)


class Nequix(AbstractForceField, AbstractTrunked):
    """The Nequix architecture at any size.

    kernel is what computes its convolutions here, rows_at_once what for_rows says; no checkpoint has them.
    """

    layers: tuple[NequixLayer, ...]
    readout: Matrix
    config: NequixConfig = eqx.field(static=True)
    kernel: str = eqx.field(static=True, default=PLAIN)
    rows_at_once: int = eqx.field(static=True, default=1)

    def __call__(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> Float[Array, " atoms"]:
        """Interaction energy of each atom in eV, 0 on padding atoms."""
        return self.read(graph, self.trunk(graph, edge_vectors))

    def works_in_parts(self, graph: AtomicGraph) -> bool:
        """Where the edges go through in more chunks than one."""
        atoms, numbers = len(graph.atomic_numbers), self._numbers_of_a_message
        return self.kernel == PLAIN and count_chunks(len(graph.senders), numbers=numbers, atoms=atoms) > 1

    def for_rows(self, count: int) -> "Nequix":
        """The same model, whose chunks of edges are smaller by that many."""
        return with_static(self, rows_at_once=count)

    def trunk(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> Features:
        """The features after the last layer, which are scalars only."""
        edges = _edge_features(graph, edge_vectors, self.config)
        if self.kernel == PLAIN:  # one size for all layers: what the radial networks do is then compiled once
            numbers, atoms = self._numbers_of_a_message, len(graph.atomic_numbers)
            edges = in_chunks(edges, numbers=numbers, atoms=atoms, rows=self.rows_at_once)
        features: Features = {0: self._one_hot(graph.atomic_numbers, dtype=edge_vectors.dtype)[:, None, :]}
        for layer in self.layers:
            features = layer(features, edges, config=self.config, kernel=self.kernel)
        return features

    def read(self, graph: AtomicGraph, features: Features) -> Float[Array, " atoms"]:
        """Interaction energy of each atom in eV, 0 on padding atoms."""
        read = jnp.matmul(features[0], over_fan_in(self.readout), precision="highest")[:, 0, 0]
        energies = read * self.config.scale + self.config.shift
        return jnp.where(graph.atom_mask, energies, 0.0)

    def invariants(self, features: Features) -> Float[Array, "atoms size"]:
        """The scalars."""
        return features[0][:, 0, :]

    @property
    def readout_arrays(self) -> tuple[str, ...]:
        """One matrix."""
        return ("readout",)

    @property
    def last_layer_arrays(self) -> tuple[str, ...]:
        """The last layer: radial network, linear maps, gains."""
        return (f"layers[{self.config.n_layers - 1}].*",)

    @property
    def gain_arrays(self) -> tuple[str, ...]:
        """Of the norm of each layer."""
        return ("layers[*].gains[*]",)

    @property
    def _numbers_of_a_message(self) -> int:
        """In the layer that has the most."""
        paths = [layer.paths(self.config) for layer in self.layers]
        return max(sum(path.components * path.channels for path in layer) for layer in paths)

    def _one_hot(self, numbers: Int[Array, " atoms"], *, dtype: jnp.dtype) -> Float[Array, "atoms species"]:
        rank = np.zeros(119, dtype=np.int32)
        rank[list(self.atomic_numbers)] = np.arange(len(self.atomic_numbers))
        return jax.nn.one_hot(jnp.asarray(rank)[numbers], len(self.atomic_numbers), dtype=dtype)

    @property
    def cutoff(self) -> float:
        """Longest edge in Å."""
        return self.config.cutoff

    @property
    def has_long_sums(self) -> bool:
        """None: there are no biases, and gains are of atoms."""
        return False

    @property
    def graph_needs(self) -> GraphNeeds:
        """All pairs within the cutoff."""
        return GraphNeeds()

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        return self.config.atomic_numbers

    @property
    def e0(self) -> Float64[np.ndarray, " species"]:
        """Energy of each isolated atom in eV."""
        return np.array(self.config.e0, dtype=np.float64)

    @classmethod
    def create(cls, config: NequixConfig, *, key: PRNGKeyArray) -> "Nequix":
        """A model with random weights, ready to be trained."""
        keys = jax.random.split(key, config.n_layers + 1)
        layers = tuple(
            _create_layer(config, channels_in, channels_out, key=layer_key)
            for (channels_in, channels_out), layer_key in zip(config.layer_channels, keys[:-1], strict=True)
        )
        readout = jax.random.normal(keys[-1], (config.layer_channels[-1][1][0], 1))
        return cls(layers=layers, readout=readout, config=config)

    def to_config(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self.config).items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Nequix":
        """A model of that configuration with all arrays zero, to be filled. Raises ConfigError for a bad setting."""
        return cls.skeleton(config_from_json(config))

    @classmethod
    def skeleton(cls, config: NequixConfig) -> "Nequix":
        """A model with all arrays zero."""
        shapes = eqx.filter_eval_shape(cls.create, config, key=jax.random.key(0))
        zeros: Nequix = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return zeros


def config_from_json(values: dict[str, Any]) -> NequixConfig:
    """A configuration from JSON values. Raises ConfigError for a setting that is unknown, missing or out of range."""
    return NequixConfig(**read_settings(values, NequixConfig, model="nequix"))


def _create_layer(
    config: NequixConfig, channels_in: tuple[int, ...], channels_out: tuple[int, ...], *, key: PRNGKeyArray
) -> NequixLayer:
    paths = coupled_paths(channels_in, lmax=config.lmax, channels_out=channels_out)
    gathered = channels_of(paths)
    gated = ungated_channels(channels_out)
    radial_key, in_key, out_key, skip_key = jax.random.split(key, 4)
    return NequixLayer(
        radial=_create_radial(config, sum(path.channels for path in paths), key=radial_key),
        linear_in=_create_linear(channels_in, channels_in, key=in_key),
        linear_out=_create_linear(gathered, gated, key=out_key),
        skip=_create_linear(channels_in, gated, key=skip_key),
        gains=tuple(jnp.ones(count) for count in gated if count),
        channels_in=channels_in,
        channels_out=channels_out,
        lmax=config.lmax,
    )


def _create_radial(config: NequixConfig, numbers: int, *, key: PRNGKeyArray) -> Matrices:
    """Hidden matrices with variance mlp_init_scale over fan-in, the last with one over fan-in."""
    sizes = [config.radial_basis_size, *[config.radial_mlp_size] * config.radial_mlp_layers, numbers]
    matrices = []
    for index, matrix_key in enumerate(jax.random.split(key, len(sizes) - 1)):
        variance = (config.mlp_init_scale if index < len(sizes) - 2 else 1.0) / sizes[index]
        matrices.append(math.sqrt(variance) * jax.random.normal(matrix_key, (sizes[index], sizes[index + 1])))
    return tuple(matrices)


def _create_linear(channels_in: tuple[int, ...], channels_out: tuple[int, ...], *, key: PRNGKeyArray) -> Matrices:
    shapes = [(channels_in[degree], channels_out[degree]) for degree in shared_degrees(channels_in, channels_out)]
    return tuple(
        jax.random.normal(one, shape) for one, shape in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
    )


def _edge_features(graph: AtomicGraph, vectors: Float[Array, "edges 3"], config: NequixConfig) -> EdgeFeatures:
    lengths, directions = lengths_and_directions(vectors)
    envelope = polynomial_cutoff(lengths, cutoff=config.cutoff, power=config.radial_polynomial_p)
    basis = bessel(lengths, cutoff=config.cutoff, size=config.radial_basis_size)
    return EdgeFeatures(
        radial=jnp.where(graph.edge_mask[:, None], basis * envelope[:, None], 0.0),
        harmonics=jnp.concatenate(spherical_harmonics(directions, lmax=config.lmax), axis=1),
        senders=graph.senders,
        receivers=graph.receivers,
    )
