"""Low-rank changes of a model's matrices: few numbers learn, and the model's own arrays stay as they are.

A matrix of an equivariant map mixes the channels of one degree and leaves its components alone; so does the product of
two smaller ones, so that a changed model has every symmetry of the model that it changes.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mlipdb.errors import ConfigError
from mlipdb.trainers.arrays import array_name
from mlipdb.trainers.matrices import is_matrix
from mlipdb.trainers.models.base import AbstractModel


class LowRank(eqx.Module):
    """The change of one matrix, or of each of a stack: lora_in times lora_out, times the scaling of the model."""

    lora_in: Float[Array, "*stack fan_in rank"]
    lora_out: Float[Array, "*stack rank fan_out"]


class Adapted(eqx.Module):
    """A model and low-rank changes of its matrices, by the names of these; scaling is alpha over the rank."""

    base: AbstractModel
    factors: dict[str, LowRank]
    scaling: float = eqx.field(static=True)

    @property
    def has_long_sums(self) -> bool:
        """Those of the model that it changes."""
        return self.base.has_long_sums


def adapt(model: AbstractModel, *, rank: int, alpha: float, key: PRNGKeyArray) -> Adapted:
    """The model with a change of this rank of every matrix, at first none: lora_out is 0.

    lora_in is random, as large as the matrix itself (root of the mean square), so that it suits however the model
    scales its matrices. Raises ConfigError for a rank below 1.
    """
    if rank < 1:
        raise ConfigError(f"the rank of low-rank changes must be 1 or more; got {rank}")
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(model, eqx.is_inexact_array))
    matrices = {array_name(path): leaf for path, leaf in leaves if is_matrix(path, leaf)}
    keys = jax.random.split(key, max(len(matrices), 1))
    factors = {
        name: _unchanged(matrix, rank=rank, key=own) for (name, matrix), own in zip(matrices.items(), keys, strict=True)
    }
    return Adapted(base=model, factors=factors, scaling=alpha / rank)


def effective(model: AbstractModel | Adapted) -> AbstractModel:
    """The plain model: that with its changes merged, W + scaling·lora_in·lora_out; any other as it is."""
    if not isinstance(model, Adapted):
        return model

    def merged(path: tuple[Any, ...], leaf: Any) -> Any:
        change = model.factors.get(array_name(path))
        if change is None:
            return leaf
        return leaf + model.scaling * jnp.matmul(change.lora_in, change.lora_out, precision="highest")

    plain: AbstractModel = jax.tree_util.tree_map_with_path(merged, model.base)
    return plain


def _unchanged(matrix: Float[Array, "*stack fan_in fan_out"], *, rank: int, key: PRNGKeyArray) -> LowRank:
    *stack, fan_in, fan_out = matrix.shape
    size = jnp.sqrt(jnp.square(matrix).mean())
    size = jnp.where(size > 0, size, 1.0 / jnp.sqrt(jnp.asarray(fan_in, matrix.dtype)))  # else it could never learn
    return LowRank(
        lora_in=size * jax.random.normal(key, (*stack, fan_in, rank), matrix.dtype),
        lora_out=jnp.zeros((*stack, rank, fan_out), matrix.dtype),
    )
