"""How far energies are from the labels."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from mlipdb.trainers.graph import Batch, Prediction
from mlipdb.trainers.losses.base import AbstractLoss, Term, absolute, count, difference


class EnergyMae(AbstractLoss):
    """Mean over graphs of |ΔE| per atom, eV."""

    needs: ClassVar[frozenset[str]] = frozenset({"energy"})

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over labelled graphs of |ΔE|/N, and their number."""
        mask = batch.targets.has_energy & batch.graph.graph_mask
        atoms = jnp.where(mask, batch.graph.atom_count, 1).astype(jnp.float32)
        errors = absolute(difference(prediction.energy, batch.targets.energy, mask))
        return jnp.sum(errors / atoms), count(mask)
