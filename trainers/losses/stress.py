"""How far stresses are from the labels."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from mlipdb.trainers.graph import Batch, Prediction
from mlipdb.trainers.losses.base import AbstractLoss, Term, absolute, count, difference


class StressMae(AbstractLoss):
    """Mean over graphs and the 9 components of |Δσ|, eV/Å³; graphs without a volume do not count."""

    needs: ClassVar[frozenset[str]] = frozenset({"stress"})

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over the components of labelled periodic graphs, and their number."""
        mask = batch.targets.has_stress & batch.graph.graph_mask & batch.graph.periodic & prediction.has_stress
        components = jnp.broadcast_to(mask[:, None, None], prediction.stress.shape)
        return jnp.sum(absolute(difference(prediction.stress, batch.targets.stress, components))), 9 * count(mask)
