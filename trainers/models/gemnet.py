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
from mlipdb.trainers.models.base import AbstractDirectModel, AbstractForceField, AbstractTrunked, DirectOutputs
from mlipdb.trainers.models.fitted import AbstractFitted
from mlipdb.trainers.models.gemnet_config import GemNetConfig, config_from_json
from mlipdb.trainers.models.gemnet_factors import fit_scale_factors
from mlipdb.trainers.models.gemnet_network import Factors, Features, Network, Result, create_network, read, run


class AbstractGemNet(AbstractFitted, AbstractTrunked):
    """What GemNet-dT and GemNet-T share: settings, blocks, and the scale factors that are fitted before a training."""

    network: eqx.AbstractVar[Network]
    config: eqx.AbstractVar[GemNetConfig]

    def trunk(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> Features:
        """Atoms after the last block, and the messages on edges from which outputs are made."""
        factors = self._factors(edge_vectors.dtype)
        return run(self.network, graph, edge_vectors, config=self.config, factors=factors)[0]

    def invariants(self, features: Features) -> Float[Array, "atoms size"]:
        """What atoms are after the last block: all numbers of this model are invariant."""
        return features.atoms

    @property
    def readout_arrays(self) -> tuple[str, ...]:
        """The outputs, one before the first block and one after each."""
        return ("network.outputs[*",)

    @property
    def last_layer_arrays(self) -> tuple[str, ...]:
        """The last block."""
        return (f"network.blocks[{self.config.n_blocks - 1}].*",)

    @property
    def gain_arrays(self) -> tuple[str, ...]:
        """None: there are no norms."""
        return ()

    def _result(self, features: Features) -> Result:
        return read(self.network, features, factors=self._factors(features.messages.dtype))[0]

    def _factors(self, dtype: jnp.dtype) -> Factors:
        if self.config.factors is None:
            raise TrainError(
                "the scale factors of this GemNet are unset, and with 1 in their place it would train badly; train it "
                "(a training fits them first), call its fitted(graphs), or set scale_factors"
            )
        return {name: jnp.asarray(values, dtype=dtype) for name, values in self.config.factors.items() if values}

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
        return self.read(graph, self.trunk(graph, edge_vectors))

    def read(self, graph: AtomicGraph, features: Features) -> DirectOutputs:
        """Interaction energies in eV and forces in eV/Å, 0 on padding atoms."""
        result = self._result(features)
        along = result.forces[:, None] * features.directions * self.config.scale
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
        return self.read(graph, self.trunk(graph, edge_vectors))

    def read(self, graph: AtomicGraph, features: Features) -> Float[Array, " atoms"]:
        """Interaction energy of each atom in eV, 0 on padding atoms."""
        return _energies(self._result(features), graph, self.config)


def _energies(result: Result, graph: AtomicGraph, config: GemNetConfig) -> Float[Array, " atoms"]:
    return jnp.where(graph.atom_mask, result.energies * config.scale + config.shift, 0.0)
