"""How far atomic energies are from the teacher's, E0 removed on both sides."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mlipdb.trainers.graph import Batch, Prediction
from mlipdb.trainers.losses.base import AbstractLoss, Term, absolute, count, difference, on_atoms


class AtomicEnergiesMae(AbstractLoss):
    """Mean over atoms of |Δε|, eV."""

    needs: ClassVar[frozenset[str]] = frozenset({"atomic_energies"})

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over labelled atoms of |Δε|, and their number."""
        errors, mask = _errors(prediction, batch)
        return jnp.sum(absolute(errors)), count(mask)


class AtomicEnergiesMse(AbstractLoss):
    """Mean over atoms of Δε², eV²."""

    needs: ClassVar[frozenset[str]] = frozenset({"atomic_energies"})

    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum over labelled atoms of Δε², and their number."""
        errors, mask = _errors(prediction, batch)
        return jnp.sum(jnp.square(errors)), count(mask)


def _errors(prediction: Prediction, batch: Batch) -> tuple[Float[Array, " atoms"], Bool[Array, " atoms"]]:
    mask = on_atoms(batch, batch.targets.has_atomic_energies)
    return difference(prediction.atomic_energies, batch.targets.atomic_energies, mask), mask
