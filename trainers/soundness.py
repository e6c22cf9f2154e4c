"""Which structures of a batch have numbers that are no numbers: to name them when a training stops."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mlipdb.trainers.graph import Batch, Prediction


def sound_graphs(prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Bool[Array, " graphs"]:
    """Where all that is predicted, and every label, is finite. A masked label is 0, and so is all of the padding."""
    targets = batch.targets
    per_graph = (prediction.energy, prediction.stress, targets.energy, targets.stress)
    per_atom = (prediction.atomic_energies, prediction.forces, targets.atomic_energies, targets.forces)
    rows = (jnp.swapaxes(hessian, 0, 1), jnp.swapaxes(targets.hessian_rows, 0, 1))
    bad_atoms = jnp.stack([_bad(values) for values in (*per_atom, *rows)]).any(axis=0)
    graphs = batch.graph.graph_mask.shape[0]
    of_atoms = jax.ops.segment_sum(bad_atoms.astype(jnp.int32), batch.graph.atom_graph, num_segments=graphs) > 0
    sound: Bool[Array, " graphs"] = ~(of_atoms | jnp.stack([_bad(values) for values in per_graph]).any(axis=0))
    return sound


def _bad(values: Float[Array, "items *shape"]) -> Bool[Array, " items"]:
    return ~jnp.isfinite(values).all(axis=tuple(range(1, values.ndim)))
