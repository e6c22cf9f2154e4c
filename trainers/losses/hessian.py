"""How far rows of the energy Hessian are from the teacher's."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlipdb.trainers.graph import Batch, Prediction
from mlipdb.trainers.losses.base import AbstractLoss, Term, count, difference, norms, on_atoms

OUTLIER = 1e4  # eV/Å²: a row with such an entry is an atom in a wall; arXiv 2501.09009's code weighs it by 1e-8
OUTLIER_WEIGHT = 1e-8


class HessianRows(AbstractLoss):
    """Block norms of Hessian rows, eV/Å²: joint distillation's term.

    For each row the lengths of its (3,) blocks add up over atoms; a structure's rows are averaged, structures add up,
    and the count is the number of atoms in structures that have a row. A row with any |reference| above 1e4 eV/Å²
    hardly counts.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hessian_rows"})

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over structures of the mean block-norm sum of their rows, and the number of their atoms."""
        graph, targets = batch.graph, batch.targets
        mask = (targets.has_hessian_row & graph.graph_mask[None, :])[:, graph.atom_graph] & graph.atom_mask[None, :]
        blocks = norms(difference(hessian, targets.hessian_rows, jnp.broadcast_to(mask[:, :, None], hessian.shape)))
        sums = _over_atoms(blocks, batch)
        rows = jnp.sum(targets.has_hessian_row.astype(jnp.float32), axis=0)
        means = jnp.sum(sums * _row_weights(batch), axis=0) / jnp.maximum(rows, 1.0)
        return jnp.sum(means), count(on_atoms(batch, rows > 0))


def _over_atoms(values: Float[Array, "rows atoms"], batch: Batch) -> Float[Array, "rows graphs"]:
    graphs = batch.graph.graph_mask.shape[0]
    return jax.ops.segment_sum(values.T, batch.graph.atom_graph, num_segments=graphs).T


def _row_weights(batch: Batch) -> Float[Array, "rows graphs"]:
    """1, or next to nothing for a row with an entry beyond OUTLIER."""
    beyond = (jnp.abs(batch.targets.hessian_rows) > OUTLIER).any(axis=-1).astype(jnp.float32)
    return jnp.where(_over_atoms(beyond, batch) > 0, OUTLIER_WEIGHT, 1.0)
