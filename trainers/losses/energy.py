"""How far energies are from the labels."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mlipdb.trainers.graph import Batch, Prediction
from mlipdb.trainers.losses.base import AbstractLoss, Term, absolute, check_delta, count, difference, huber


class EnergyMae(AbstractLoss):
    """Mean over graphs of |ΔE| per atom, eV."""

    needs: ClassVar[frozenset[str]] = frozenset({"energy"})

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over labelled graphs of |ΔE|/N, and their number."""
        errors, mask = _errors(prediction, batch)
        return jnp.sum(absolute(errors)), count(mask)


class EnergyHuber(AbstractLoss):
    """Mean over graphs of Huber's function of ΔE per atom: quadratic below delta (eV), linear beyond."""

    needs: ClassVar[frozenset[str]] = frozenset({"energy"})
    delta: float = eqx.field(default=0.1, static=True)

    def __check_init__(self) -> None:
        check_delta(self.delta)

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over labelled graphs, and their number."""
        errors, mask = _errors(prediction, batch)
        return jnp.sum(huber(errors, delta=self.delta)), count(mask)


def _errors(prediction: Prediction, batch: Batch) -> tuple[Float[Array, " graphs"], Bool[Array, " graphs"]]:
    """ΔE per atom, 0 where there is no label."""
    mask = batch.targets.has_energy & batch.graph.graph_mask
    atoms = jnp.where(mask, batch.graph.atom_count, 1).astype(jnp.float32)
    return difference(prediction.energy, batch.targets.energy, mask) / atoms, mask
