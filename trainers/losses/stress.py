"""How far stresses are from the labels."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mlipdb.trainers.graph import Batch, Prediction
from mlipdb.trainers.losses.base import AbstractLoss, Term, absolute, check_delta, count, difference, huber


class StressMae(AbstractLoss):
    """Mean over graphs and the 9 components of |Δσ|, eV/Å³; graphs without a volume do not count."""

    needs: ClassVar[frozenset[str]] = frozenset({"stress"})

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over the components of labelled periodic graphs, and their number."""
        errors, mask = _errors(prediction, batch)
        return jnp.sum(absolute(errors)), 9 * count(mask)


class StressHuber(AbstractLoss):
    """Mean over graphs and the 9 components of Huber's function of Δσ: quadratic below delta (eV/Å³), linear beyond."""

    needs: ClassVar[frozenset[str]] = frozenset({"stress"})
    delta: float = eqx.field(default=0.1, static=True)

    def __check_init__(self) -> None:
        check_delta(self.delta)

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over the components of labelled periodic graphs, and their number."""
        errors, mask = _errors(prediction, batch)
        return jnp.sum(huber(errors, delta=self.delta)), 9 * count(mask)


def _errors(prediction: Prediction, batch: Batch) -> tuple[Float[Array, "graphs 3 3"], Bool[Array, " graphs"]]:
    mask = batch.targets.has_stress & batch.graph.graph_mask & batch.graph.periodic & prediction.has_stress
    components = jnp.broadcast_to(mask[:, None, None], prediction.stress.shape)
    return difference(prediction.stress, batch.targets.stress, components), mask
