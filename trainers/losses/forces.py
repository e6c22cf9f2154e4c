"""How far forces are from the labels."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mlipdb.trainers.graph import Batch, Prediction
from mlipdb.trainers.losses.base import (
    AbstractLoss,
    Term,
    absolute,
    check_delta,
    count,
    difference,
    huber,
    norms,
    on_atoms,
)


class ForcesL2(AbstractLoss):
    """Mean over atoms of the length of ΔF, eV/Å."""

    needs: ClassVar[frozenset[str]] = frozenset({"forces"})

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over labelled atoms of ‖ΔF‖₂, and their number."""
        errors, mask = _force_errors(prediction, batch)
        return jnp.sum(norms(errors)), count(mask)


class ForcesMae(AbstractLoss):
    """Mean over force components of |ΔF|, eV/Å."""

    needs: ClassVar[frozenset[str]] = frozenset({"forces"})

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over labelled components of |ΔF|, and their number."""
        errors, mask = _force_errors(prediction, batch)
        return jnp.sum(absolute(errors)), 3 * count(mask)


class ForcesHuber(AbstractLoss):
    """Mean over force components of Huber's function of ΔF: quadratic below delta (eV/Å), linear beyond."""

    needs: ClassVar[frozenset[str]] = frozenset({"forces"})
    delta: float = eqx.field(default=0.1, static=True)

    def __check_init__(self) -> None:
        check_delta(self.delta)

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over labelled components, and their number."""
        errors, mask = _force_errors(prediction, batch)
        return jnp.sum(huber(errors, delta=self.delta)), 3 * count(mask)


def _force_errors(prediction: Prediction, batch: Batch) -> tuple[Float[Array, "atoms 3"], Bool[Array, " atoms"]]:
    mask = on_atoms(batch, batch.targets.has_forces)
    components = jnp.broadcast_to(mask[:, None], prediction.forces.shape)
    return difference(prediction.forces, batch.targets.forces, components), mask
