"""GemNet: GemNet-dT, whose forces are an output, and GemNet-T, whose forces are derivatives."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mlipdb.errors import TrainError
from mlipdb.trainers.graph import AtomicGraph
from mlipdb.trainers.models.base import AbstractDirectModel, AbstractForceField, DirectOutputs
from mlipdb.trainers.models.edges import lengths_and_directions
from mlipdb.trainers.models.fitted import AbstractFitted
from mlipdb.trainers.models.gemnet_config import GemNetConfig, config_from_json
from mlipdb.trainers.models.gemnet_factors import fit_scale_factors
from mlipdb.trainers.models.gemnet_network import Network, Result, create_network, run


class AbstractGemNet(AbstractFitted):
    """What GemNet-dT and GemNet-T share: settings, and the scale factors that are fitted before a training."""

    network: eqx.AbstractVar[Network]
    config: eqx.AbstractVar[GemNetConfig]

    def fitted(self, graphs: Sequence[AtomicGraph]) -> "AbstractGemNet":
        """The same model with scale factors fitted on these batches."""
        factors = fit_scale_factors(self.network, graphs, config=self.config)
        settings: Any = dataclasses.replace(self.config, scale_factors=factors)
        return type(self)(network=self.network, config=settings)

    @classmethod
    def create(cls, config: GemNetConfig, *, key: PRNGKeyArray) -> "AbstractGemNet":
        """A model with random weights, ready to be trained once its scale factors are there."""
        return cls(network=create_network(config, key=key), config=config)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AbstractGemNet":
        """A model of that configuration with all arrays zero, to be filled. Raises ConfigError for a bad setting."""
        parsed = config_from_json(config, direct=issubclass(cls, AbstractDirectModel))
        shapes = eqx.filter_eval_shape(create_network, parsed, key=jax.random.key(0))
        zeros: Network = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return cls(network=zeros, config=parsed)


class GemNetDT(AbstractGemNet, AbstractDirectModel):
    """GemNet-dT: a force along each edge is an output beside the energy."""

    network: Network
    config: GemNetConfig = eqx.field(static=True)

    def __call__(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> DirectOutputs:
        """Interaction energies in eV and forces in eV/Å, 0 on padding atoms."""
        result = _evaluated(self.network, graph, edge_vectors, config=self.config)
        _, directions = lengths_and_directions(edge_vectors)
        along = result.forces[:, None] * directions * self.config.scale
        forces = jax.ops.segment_sum(along, graph.receivers, len(graph.atom_mask), indices_are_sorted=True)
        return DirectOutputs(
            atomic_energies=_energies(result, graph, self.config),
            forces=jnp.where(graph.atom_mask[:, None], forces, 0.0),
        )


class GemNetT(AbstractGemNet, AbstractForceField):
    """GemNet-T: energies only; forces and stress are their derivatives."""

    network: Network
    config: GemNetConfig = eqx.field(static=True)

    def __call__(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> Float[Array, " atoms"]:
        """Interaction energy of each atom in eV, 0 on padding atoms."""
        return _energies(_evaluated(self.network, graph, edge_vectors, config=self.config), graph, self.config)


def _evaluated(
    network: Network, graph: AtomicGraph, vectors: Float[Array, "edges 3"], *, config: GemNetConfig
) -> Result:
    if config.factors is None:
        raise TrainError(
            "the scale factors of this GemNet are unset, and with 1 in their place it would train badly; train it "
            "(a training fits them first), call its fitted(graphs), or set scale_factors"
        )
    factors = {name: jnp.asarray(values, dtype=vectors.dtype) for name, values in config.factors.items() if values}
    return run(network, graph, vectors, config=config, factors=factors)


def _energies(result: Result, graph: AtomicGraph, config: GemNetConfig) -> Float[Array, " atoms"]:
    return jnp.where(graph.atom_mask, result.energies * config.scale + config.shift, 0.0)
