"""How gradients become updates: clipping, then Muon for matrices and Adam for the rest, or AdamW for all."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from mlipdb.trainers.recipe import OptimizerRecipe

# Set from the data before the first step; neither gradient, decay nor averaging may touch them. Nequix has them as
# plain settings; a plug-in model may have them as arrays.
FROZEN = frozenset({"e0", "scale", "shift", "avg_n_neighbors"})


def make_optimizer(recipe: OptimizerRecipe) -> optax.GradientTransformation:
    """Updates for a learning rate of 1; the train step multiplies them by the rate of the moment.

    Weight decay is decoupled and only on matrices, stored (in, out), possibly stacked: RMS gains and other vectors keep
    their size. Muon's update of a matrix is scaled by √max(1, out/in).
    """
    if recipe.name == "muon":
        update = optax.contrib.muon(
            1.0, weight_decay=recipe.weight_decay, muon_weight_dimension_numbers=_matrix_axes, nesterov=True
        )
    else:
        update = optax.adamw(1.0, weight_decay=recipe.weight_decay, mask=_matrices)
    return _promoting(optax.chain(optax.clip_by_global_norm(recipe.clip_norm), update))


def _promoting(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Optax raises floats to integer powers, which JAX's strict promotion, as our tests have it, would refuse."""

    def update(updates: PyTree, state: PyTree, parameters: PyTree = None) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"):
            changed: tuple[PyTree, PyTree] = inner.update(updates, state, parameters)
        return changed

    return optax.GradientTransformation(inner.init, update)


def _matrices(parameters: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, parameters)


def _matrix_axes(parameters: PyTree) -> PyTree:
    numbers = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    return jax.tree.map(lambda leaf: numbers if leaf.ndim >= 2 else None, parameters)


def trainable(model: PyTree) -> PyTree[bool]:
    """True at the arrays that learn: floating point and not named in FROZEN."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: eqx.is_inexact_array(leaf) and not FROZEN & {_name(key) for key in path}, model
    )


def _name(key: Any) -> str:
    return str(getattr(key, "name", getattr(key, "key", "")))


def averaged(average: PyTree, parameters: PyTree, *, step: Int[Array, ""], decay: float) -> PyTree:
    """The exponential moving average after step number `step` (from 0), with decay min(decay, (1+t)/(10+t))."""
    passed = step.astype(jnp.float32)
    rate = jnp.minimum(jnp.float32(decay), (1.0 + passed) / (10.0 + passed))
    return jax.tree.map(lambda old, new: _mix(old, new, rate=rate), average, parameters)


def _mix(old: Float[Array, "..."], new: Float[Array, "..."], *, rate: Float[Array, ""]) -> Float[Array, "..."]:
    return old + (1.0 - rate.astype(old.dtype)) * (new - old)
