"""PaiNN: Painn, whose forces are an output, and PainnConservative, whose forces are derivatives."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mlipdb.errors import TrainError
from mlipdb.trainers.graph import AtomicGraph
from mlipdb.trainers.models.base import AbstractDirectModel, AbstractForceField, AbstractTrunked, DirectOutputs
from mlipdb.trainers.models.derive import edge_vectors
from mlipdb.trainers.models.fitted import AbstractFitted
from mlipdb.trainers.models.painn_config import PainnConfig, config_from_json
from mlipdb.trainers.models.painn_network import Features, Network, create_network, read, run


class AbstractPainn(AbstractFitted, AbstractTrunked):
    """What both kinds of PaiNN share: settings, layers, and the scale factors that are fitted before a training."""

    network: eqx.AbstractVar[Network]
    config: eqx.AbstractVar[PainnConfig]

    def trunk(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> Features:
        """Scalars and vectors of atoms after the last layer. Raises TrainError before the fit."""
        if self.config.factors is None:
            raise TrainError(
                "the scale factors of this PaiNN are unset, and with 1 in their place it would train badly; train it "
                "(a training fits them first), call its fitted(graphs), or set scale_factors"
            )
        return run(self.network, graph, edge_vectors, config=self.config, factors=self.config.factors)

    def invariants(self, features: Features) -> Float[Array, "atoms size"]:
        """The scalars."""
        return features.scalars

    @property
    def readout_arrays(self) -> tuple[str, ...]:
        """The energy's perceptron and, of a direct model, the forces' gated blocks."""
        return ("network.energy[*", "network.forces[*") if self.config.direct else ("network.energy[*",)

    @property
    def last_layer_arrays(self) -> tuple[str, ...]:
        """The last message and update."""
        last = self.config.n_layers - 1
        return (f"network.messages[{last}].*", f"network.updates[{last}].*")

    @property
    def gain_arrays(self) -> tuple[str, ...]:
        """Gain and bias of the norm of each message."""
        return tuple(f"network.messages[{n}].{kind}" for n in range(self.config.n_layers) for kind in ("gain", "bias"))

    def fitted(self, graphs: Sequence[AtomicGraph]) -> "AbstractPainn":
        """The same model with scale factors that give each layer's scalars variance 1, on average over the batches.

        They are fitted in the order of the layers, each with those before it in place.
        """
        factors = np.ones(self.config.n_layers)
        for layer in range(self.config.n_layers):
            on_device = jnp.asarray(factors, dtype=self.network.embedding.dtype)
            found = [_variances(self.network, graph, on_device, config=self.config)[layer] for graph in graphs]
            factors[layer] = _factor(float(np.mean([float(one) for one in found])), layer=layer)
        config = dataclasses.replace(self.config, scale_factors=tuple(factors.tolist()))
        settings: Any = {"network": self.network, "config": config}
        return type(self)(**settings)

    @classmethod
    def create(cls, config: PainnConfig, *, key: PRNGKeyArray) -> "AbstractPainn":
        """A model with random weights, ready to be trained once its scale factors are there."""
        settings: Any = {"network": create_network(config, key=key), "config": config}
        return cls(**settings)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AbstractPainn":
        """A model of that configuration with all arrays zero, to be filled. Raises ConfigError for a bad setting."""
        parsed = config_from_json(config, direct=issubclass(cls, AbstractDirectModel))
        shapes = eqx.filter_eval_shape(create_network, parsed, key=jax.random.key(0))
        zeros: Network = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        settings: Any = {"network": zeros, "config": parsed}
        return cls(**settings)


class Painn(AbstractPainn, AbstractDirectModel):
    """PaiNN as the paper's student: a force on each atom is an output beside the energy."""

    network: Network
    config: PainnConfig = eqx.field(static=True)

    def __call__(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> DirectOutputs:
        """Interaction energies in eV and forces in eV/Å, 0 on padding atoms."""
        return self.read(graph, self.trunk(graph, edge_vectors))

    def read(self, graph: AtomicGraph, features: Features) -> DirectOutputs:
        """Interaction energies in eV and forces in eV/Å, 0 on padding atoms."""
        found = read(self.network, features)
        forces = jnp.zeros_like(graph.positions) if found.forces is None else found.forces * self.config.scale
        return DirectOutputs(
            atomic_energies=_energies(found.energies, graph, self.config),
            forces=jnp.where(graph.atom_mask[:, None], forces, 0.0),
        )


class PainnConservative(AbstractPainn, AbstractForceField):
    """PaiNN with energies only; forces and stress are their derivatives."""

    network: Network
    config: PainnConfig = eqx.field(static=True)

    def __call__(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> Float[Array, " atoms"]:
        """Interaction energy of each atom in eV, 0 on padding atoms."""
        return self.read(graph, self.trunk(graph, edge_vectors))

    def read(self, graph: AtomicGraph, features: Features) -> Float[Array, " atoms"]:
        """Interaction energy of each atom in eV, 0 on padding atoms."""
        return _energies(read(self.network, features).energies, graph, self.config)


def _energies(energies: Float[Array, " atoms"], graph: AtomicGraph, config: PainnConfig) -> Float[Array, " atoms"]:
    return jnp.where(graph.atom_mask, energies * config.scale + config.shift, 0.0)


@eqx.filter_jit
def _variances(
    network: Network, graph: AtomicGraph, factors: Float[Array, " layers"], *, config: PainnConfig
) -> Float[Array, " layers"]:
    return run(network, graph, edge_vectors(graph), config=config, factors=factors).variances


def _factor(variance: float, *, layer: int) -> float:
    if not (np.isfinite(variance) and variance > 0):
        raise TrainError(
            f"the scale factor of layer {layer + 1} cannot be fitted: its scalars have variance {variance}. The "
            "batches to fit on need atoms; widen the subset or set model.scale_factors"
        )
    return float(1 / np.sqrt(variance))
