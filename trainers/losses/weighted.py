"""The loss of a run: a weighted sum of terms."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlipdb.trainers.graph import REPLAY, TARGET, Batch, Prediction
from mlipdb.trainers.heads_of_batch import REPLAYED, of_head
from mlipdb.trainers.loss_settings import Settings, make_loss
from mlipdb.trainers.losses.base import AbstractLoss, Term

NO_SETTINGS: Settings = MappingProxyType({})
Total = Callable[[Float[Array, ""]], Float[Array, ""]]


class WeightedLosses(eqx.Module):
    """Named terms with their weights; the loss is Σ weight · sum / count, a term without labels counting nothing.

    Weights are an array, so that a schedule changes them without another compilation. Where graphs say of which head
    they are, that sum is taken of the target's graphs alone, and again of the replay's, which counts replay_weight
    times: outside of the terms, so that no term can leave it out. Terms of the replay have names of their own.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    weights: Float[Array, " terms"]
    terms: tuple[AbstractLoss, ...]
    replay_weight: Float[Array, ""]

    @property
    def needs(self) -> frozenset[str]:
        """Every quantity that some term needs."""
        return frozenset[str]().union(*(term.needs for term in self.terms))

    def weighed(self, weights: Mapping[str, float]) -> "WeightedLosses":
        """The same terms with these weights, which name all of them."""
        chosen = _array([weights[name] for name in self.names])
        return WeightedLosses(self.names, chosen, self.terms, self.replay_weight)

    def __call__(
        self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch, *, total: Total
    ) -> tuple[Float[Array, ""], dict[str, Term]]:
        """This device's part of the loss (they add up to the loss) and each term's (sum, count).

        total adds a number over devices; counts are added before the division, so that a device with few structures
        does not weigh more than its share.
        """
        if batch.graph.head is None:
            return self._summed(prediction, hessian, batch, total=total)
        loss, terms = self._summed(prediction, hessian, of_head(batch, TARGET), total=total)
        replayed, others = self._summed(prediction, hessian, of_head(batch, REPLAY), total=total)
        return loss + self.replay_weight * replayed, terms | {REPLAYED + name: term for name, term in others.items()}

    def _summed(
        self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch, *, total: Total
    ) -> tuple[Float[Array, ""], dict[str, Term]]:
        found = {name: term(prediction, hessian, batch) for name, term in zip(self.names, self.terms, strict=True)}
        loss = jnp.zeros((), jnp.float32)
        for place, name in enumerate(self.names):
            part, number = found[name]
            loss = loss + self.weights[place] * part / jnp.maximum(total(jax.lax.stop_gradient(number)), 1.0)
        return loss, found


def make_losses(
    weights: Mapping[str, float], *, settings: Settings = NO_SETTINGS, replay_weight: float = 1.0
) -> WeightedLosses:
    """The terms of the entry points `mlipdb.losses` with these names, those of weight 0 left out.

    settings are what a loss has beside its weight, by its name; replay_weight is how often the mean loss of replayed
    graphs counts beside that of the target's. Raises MlipdbError for a name that nothing registers.
    """
    chosen = {name: weight for name, weight in weights.items() if weight}
    terms = tuple(make_loss(name, settings.get(name, {})) for name in chosen)
    return WeightedLosses(tuple(chosen), _array(list(chosen.values())), terms, jnp.float32(replay_weight))


def _array(weights: Sequence[float]) -> Float[Array, " terms"]:
    return jnp.asarray(weights, jnp.float32)
