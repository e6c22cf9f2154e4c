"""What a loss term is: a sum and a count, so that batches on many devices add up to one mean."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mlipdb.errors import ConfigError
from mlipdb.trainers.graph import Batch, Prediction

Term = tuple[Float[Array, ""], Float[Array, ""]]


class AbstractLoss(eqx.Module):
    """One term of a loss: how far a prediction is from the labels that are there.

    needs names the quantities that must be predicted and labelled: energy, forces, stress, atomic_energies,
    hessian_rows. A call gives (sum, count) of one batch; the term's value is sum over count, both added over devices
    first. A missing label adds nothing to either.
    """

    needs: eqx.AbstractClassVar[frozenset[str]]

    @abc.abstractmethod
    def __call__(self, prediction: Prediction, hessian: Float[Array, "rows atoms 3"], batch: Batch) -> Term:
        """Sum and count of this batch; the count does not depend on the prediction."""


def difference(
    predicted: Float[Array, "*shape"], reference: Float[Array, "*shape"], mask: Bool[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Predicted minus reference, 0 where masked; chosen by `where`, so that nothing masked reaches a gradient."""
    return jnp.where(mask, predicted - reference, jnp.zeros_like(predicted))


def absolute(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Absolute values with gradient 0 at 0, where jnp.abs has 1: an atom that symmetry holds still is not pushed."""
    return values * jnp.sign(values)


def huber(values: Float[Array, "*shape"], *, delta: float) -> Float[Array, "*shape"]:
    """Quadratic below delta, linear beyond, with one slope where they meet; gradient 0 at 0."""
    sizes = absolute(values)
    quadratic = jnp.minimum(sizes, delta)
    return 0.5 * jnp.square(quadratic) + delta * (sizes - quadratic)


def check_delta(delta: float) -> None:
    """Raise ConfigError where Huber's function is not defined."""
    if not 0 < delta < float("inf"):
        raise ConfigError(f"delta of a Huber loss must be above 0; got {delta}")


def norms(vectors: Float[Array, "*shape 3"]) -> Float[Array, "*shape"]:
    """Length of each vector, with gradient 0 (not NaN) at length 0."""
    squares = jnp.sum(jnp.square(vectors), axis=-1)
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, jnp.ones_like(squares))), jnp.zeros_like(squares))


def count(mask: Bool[Array, "*shape"]) -> Float[Array, ""]:
    """How many are True, as float32."""
    return jnp.sum(mask.astype(jnp.float32))


def on_atoms(batch: Batch, has_label: Bool[Array, " graphs"]) -> Bool[Array, " atoms"]:
    """Which atoms belong to a graph that has the label; never a padding atom."""
    mask: Bool[Array, " atoms"] = batch.graph.atom_mask & has_label[batch.graph.atom_graph]
    return mask
