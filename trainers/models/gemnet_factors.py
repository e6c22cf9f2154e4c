"""Fitting a GemNet's scale factors on batches."""

from collections.abc import Sequence
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from mlipdb.errors import TrainError
from mlipdb.trainers.graph import AtomicGraph
from mlipdb.trainers.models.derive import edge_vectors
from mlipdb.trainers.models.gemnet_config import GemNetConfig, ScaleFactors
from mlipdb.trainers.models.gemnet_network import Factors, Moments, Network, observed

LARGEST = 1e4  # a factor beyond it would lift rounding errors to signals
Numbers = dict[str, Float64[np.ndarray, " numbers"]]


def fit_scale_factors(network: Network, graphs: Sequence[AtomicGraph], *, config: GemNetConfig) -> ScaleFactors:
    """The factors that give what they scale the variance of what it was made from, on average over the batches.

    They are fitted in the order in which the network uses them, each with those before it in place; those that do not
    see each other share a pass over the batches. Raises TrainError where there is no variance to go by.
    """
    blocks = config.n_blocks
    factors: Numbers = {
        "triplet_radial": np.ones(blocks),
        "triplet_sum": np.ones(blocks),
        "atom_sum": np.ones(blocks),
        "energy_sum": np.ones(blocks + 1),
    }
    if config.direct:
        factors["force_radial"] = np.ones(blocks + 1)
    for together in _stages(config):
        moments = _mean_moments(network, graphs, config=config, factors=factors)
        for name, place in together:
            before, after = (float(values[place]) for values in moments[name])
            factors[name][place] = _factor(before, after, name=f"{name}[{place}]")
    return ScaleFactors(**{name: tuple(values.tolist()) for name, values in factors.items()})


def _stages(config: GemNetConfig) -> list[list[tuple[str, int]]]:
    """The factors, by kind and place, in the order of their use; those of one stage do not see each other."""
    outputs = ["energy_sum", "force_radial"] if config.direct else ["energy_sum"]
    stages: list[list[tuple[str, int]]] = []
    for block in range(config.n_blocks):
        stages.append([*((name, block) for name in outputs), ("triplet_radial", block)])
        stages += [[("triplet_sum", block)], [("atom_sum", block)]]
    return [*stages, [(name, config.n_blocks) for name in outputs]]


def _factor(before: float, after: float, *, name: str) -> float:
    factor = np.sqrt(before / after) if before > 0 and after > 0 else np.nan
    if not 1 / LARGEST < factor < LARGEST:  # published ones are between 0.4 and 4; not a number is refused as well
        raise TrainError(
            f"scale factor {name} cannot be fitted: the variance before is {before:.3g}, after {after:.3g}. The "
            "batches to fit on need atoms with neighbours well within the cutoff; widen the subset or "
            "model.cutoff, or set model.scale_factors"
        )
    return float(factor)


def _mean_moments(
    network: Network, graphs: Sequence[AtomicGraph], *, config: GemNetConfig, factors: Numbers
) -> dict[str, tuple[Float64[np.ndarray, " numbers"], Float64[np.ndarray, " numbers"]]]:
    """Means over batches, in float64."""
    dtype = network.embedding.dtype
    on_device = {name: jnp.asarray(values, dtype=dtype) for name, values in factors.items()}
    found = [jax.device_get(_moments(network, graph, on_device, config=config)) for graph in graphs]
    return {
        name: cast(
            "tuple[Float64[np.ndarray, ' numbers'], Float64[np.ndarray, ' numbers']]",
            tuple(np.mean([np.asarray(one[name][side], dtype=np.float64) for one in found], axis=0) for side in (0, 1)),
        )
        for name in factors
    }


@eqx.filter_jit
def _moments(network: Network, graph: AtomicGraph, factors: Factors, *, config: GemNetConfig) -> Moments:
    return observed(network, graph, edge_vectors(graph), config=config, factors=factors)
