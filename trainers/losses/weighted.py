"""The loss of a run: a weighted sum of terms."""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlipdb import registry
from mlipdb.trainers.graph import Batch, Prediction
from mlipdb.trainers.losses.base import AbstractLoss, Term

Total = Callable[[Float[Array, ""]], Float[Array, ""]]


class WeightedLosses(eqx.Module):
    """Named terms with their weights; the loss is Σ weight · sum / count, a term without labels counting nothing.

    Weights are an array, so that a schedule changes them without another compilation.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    weights: Float[Array, " terms"]
    terms: tuple[AbstractLoss, ...]

    @property
    def needs(self) -> frozenset[str]:
        """Every quantity that some term needs."""
        return frozenset[str]().union(*(term.needs for term in self.terms))

    def weighed(self, weights: Mapping[str, float]) -> "WeightedLosses":
        """The same terms with these weights, which name all of them."""
        return WeightedLosses(self.names, _array([weights[name] for name in self.names]), self.terms)

    def __call__(
        self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch, *, total: Total
    ) -> tuple[Float[Array, ""], dict[str, Term]]:
        """This device's part of the loss (they add up to the loss) and each term's (sum, count).

        total adds a number over devices; counts are added before the division, so that a device with few structures
        does not weigh more than its share.
        """
        found = {name: term(prediction, hessian, batch) for name, term in zip(self.names, self.terms, strict=True)}
        loss = jnp.zeros((), jnp.float32)
        for place, name in enumerate(self.names):
            part, number = found[name]
            loss = loss + self.weights[place] * part / jnp.maximum(total(jax.lax.stop_gradient(number)), 1.0)
        return loss, found


def make_losses(weights: Mapping[str, float]) -> WeightedLosses:
    """The terms of the entry points `mlipdb.losses` with these names, those of weight 0 left out.

    Raises MlipdbError for a name that nothing registers.
    """
    chosen = {name: weight for name, weight in weights.items() if weight}
    terms = tuple(registry.load("mlipdb.losses", name)() for name in chosen)
    return WeightedLosses(tuple(chosen), _array(list(chosen.values())), terms)


def _array(weights: Sequence[float]) -> Float[Array, " terms"]:
    return jnp.asarray(weights, jnp.float32)
