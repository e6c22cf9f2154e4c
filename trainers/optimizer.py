"""How gradients become updates: clipping, then Muon for matrices and Adam for the rest, or AdamW for all."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from mlipdb.trainers.arrays import arrays_like
from mlipdb.trainers.matrices import is_matrix, key_name
from mlipdb.trainers.models.lora import Adapted
from mlipdb.trainers.muon import scale_by_muon
from mlipdb.trainers.recipe import OptimizerRecipe

# Set from the data before the first step; neither gradient, decay nor averaging may touch them. Nequix has them as
# plain settings; a plug-in model may have them as arrays.
FROZEN = frozenset({"e0", "scale", "shift", "avg_n_neighbors"})


def make_optimizer(recipe: OptimizerRecipe) -> optax.GradientTransformation:
    """Updates for a learning rate of 1; the train step multiplies them by the rate of the moment.

    Weight decay is decoupled and only on matrices, stored (in, out), possibly stacked: RMS gains, other vectors and
    embeddings keep their size. Muon's update of a matrix is scaled by √max(1, out/in).
    """
    if recipe.name == "muon":
        update = _muon(recipe)
    elif recipe.amsgrad:
        decay = optax.add_decayed_weights(recipe.weight_decay, mask=_matrices)
        update = optax.chain(_amsgrad(epsilon=recipe.epsilon), decay, optax.scale(-1.0))
    else:
        update = optax.adamw(1.0, eps=recipe.epsilon, weight_decay=recipe.weight_decay, mask=_matrices)
    return _promoting(optax.chain(_clipping(recipe.clip_norm), update))


def _clipping(most: float) -> optax.GradientTransformation:
    """Gradients of a norm above the most are scaled down to it. Optax's own compiles a sum for each array."""

    def update(updates: PyTree, state: PyTree, parameters: PyTree = None) -> tuple[PyTree, PyTree]:
        norm = _norm(ravel_pytree(updates)[0])
        factor = jnp.where(norm < most, jnp.ones_like(norm), most / norm)
        return jax.tree.map(lambda leaf: leaf * factor, updates), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def _norm(values: Float[Array, " size"]) -> Float[Array, ""]:
    """The square root of the sum of squares, summed in rows as many as they are long, which keeps rounding small."""
    rows = math.isqrt(len(values)) + 1
    square = jnp.pad(jnp.square(values), (0, rows * rows - len(values))).reshape(rows, rows)
    return jnp.sqrt(square.sum(axis=1).sum())


def _muon(recipe: OptimizerRecipe) -> optax.GradientTransformation:
    """Muon for matrices and Nesterov Adam for the rest.

    The state is laid out as that of optax.contrib.muon, which scales by shape where the identity stands.
    """
    decay = optax.add_decayed_weights(recipe.weight_decay)
    matrices = optax.chain(scale_by_muon(recipe.epsilon), optax.identity(), decay, optax.scale(-1.0))
    others = optax.adamw(1.0, eps=recipe.epsilon, weight_decay=0.0, nesterov=True)
    return optax.partition(
        {"muon": matrices, "adam": others},
        lambda parameters: jax.tree.map(lambda one: "muon" if one else "adam", _matrices(parameters)),
    )


class _AmsgradState(NamedTuple):
    steps: Int[Array, ""]
    mean: PyTree
    square: PyTree
    largest: PyTree


def _amsgrad(*, epsilon: float, b1: float = 0.9, b2: float = 0.999) -> optax.GradientTransformation:
    """Adam that divides by the largest average square so far: PyTorch's, with which the students were published.

    Optax takes the largest of averages whose bias is corrected, so the first gradient, of which that average is
    the whole, would brake an element for good; here the bias is corrected after the largest is chosen.
    """

    def init(parameters: PyTree) -> _AmsgradState:
        zeros = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(3)]
        return _AmsgradState(jnp.zeros((), jnp.int32), *zeros)

    def update(gradient: PyTree, state: _AmsgradState, parameters: PyTree = None) -> tuple[PyTree, _AmsgradState]:
        steps = state.steps + 1
        mean = jax.tree.map(lambda old, new: b1 * old + (1.0 - b1) * new, state.mean, gradient)
        square = jax.tree.map(lambda old, new: b2 * old + (1.0 - b2) * new * new, state.square, gradient)
        largest = jax.tree.map(jnp.maximum, state.largest, square)
        taken = steps.astype(jnp.float32)
        first, second = 1.0 - jnp.float32(b1) ** taken, 1.0 - jnp.float32(b2) ** taken
        step = jax.tree.map(lambda m, v: (m / first) / (jnp.sqrt(v / second) + epsilon), mean, largest)
        return step, _AmsgradState(steps, mean, square, largest)

    return optax.GradientTransformation(init, update)


def _promoting(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Optax raises floats to integer powers, which JAX's strict promotion, as our tests have it, would refuse."""

    def update(updates: PyTree, state: PyTree, parameters: PyTree = None) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"):
            changed: tuple[PyTree, PyTree] = inner.update(updates, state, parameters)
        return changed

    return optax.GradientTransformation(inner.init, update)


def _matrices(parameters: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(is_matrix, parameters)


def trainable(model: PyTree, learns: tuple[str, ...] = ("*",)) -> PyTree[bool]:
    """True at the arrays that learn: floating point, not named in FROZEN, and like a pattern of learns.

    Of an Adapted model only its low-rank changes learn, whatever the patterns. Raises ConfigError for a pattern that no
    array is like; see arrays_like.
    """
    if isinstance(model, Adapted):
        learns = ("factors[*",)
    chosen = arrays_like(model, learns)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, one: one and eqx.is_inexact_array(leaf) and not FROZEN & {key_name(key) for key in path},
        model,
        chosen,
    )


def averaged(average: PyTree, parameters: PyTree, *, step: Int[Array, ""], decay: float) -> PyTree:
    """The exponential moving average after step number `step` (from 0), with decay min(decay, (1+t)/(10+t))."""
    passed = step.astype(jnp.float32)
    rate = jnp.minimum(jnp.float32(decay), (1.0 + passed) / (10.0 + passed))
    return jax.tree.map(lambda old, new: _mix(old, new, rate=rate), average, parameters)


def _mix(old: Float[Array, "..."], new: Float[Array, "..."], *, rate: Float[Array, ""]) -> Float[Array, "..."]:
    return old + (1.0 - rate.astype(old.dtype)) * (new - old)
