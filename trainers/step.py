"""One step of training, and one of validation, compiled; on one device or many."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from mlipdb.trainers.compiled import compiled
from mlipdb.trainers.devices import ALIKE, AXIS, SPREAD
from mlipdb.trainers.graph import Batch, Prediction
from mlipdb.trainers.losses import Term, WeightedLosses
from mlipdb.trainers.metrics import Sums, error_sums
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.models.derive import predict, predict_with_rows
from mlipdb.trainers.models.lora import Adapted, effective
from mlipdb.trainers.optimizer import averaged, trainable
from mlipdb.trainers.soundness import sound_graphs

# Hessian rows, up to which a step makes each by code of its own; more would take too long to compile.
WRITTEN_OUT = 4


class TrainState(eqx.Module):
    """Everything that a step changes. average holds the moving averages of the arrays that learn, None elsewhere."""

    model: AbstractModel | Adapted
    average: PyTree
    optimizer: PyTree
    step: Int[Array, ""]

    @property
    def averaged_model(self) -> AbstractModel | Adapted:
        """The model with averaged weights: what is validated and, with low-rank changes merged, kept."""
        combined: AbstractModel | Adapted = eqx.combine(self.average, self.model)
        return combined


class Outcome(eqx.Module):
    """What a step says, summed over devices: the loss, (sum, count) of its terms, and error sums.

    finite is False when the loss or the gradient has a value that is not a number. sound is False for the graphs of
    each device for which the prediction or a label has one.
    """

    loss: Float[Array, ""]
    terms: dict[str, Term]
    errors: dict[str, Sums]
    finite: Bool[Array, ""]
    sound: Bool[Array, "devices graphs"]


def initial_state(
    model: AbstractModel | Adapted, optimizer: optax.GradientTransformation, learns: tuple[str, ...] = ("*",)
) -> TrainState:
    """Step 0: averages are the weights. Every array is copied, because a step gives its state's memory away.

    learns are patterns of the names of arrays that learn; averages and the optimizer's state are of these only.
    """
    model = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True) if eqx.is_array(leaf) else leaf, model)
    parameters = eqx.filter(model, trainable(model, learns))
    average = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), parameters)
    return TrainState(model, average, optimizer.init(parameters), jnp.zeros((), jnp.int32))


Inputs = tuple[Batch, Float[Array, ""], WeightedLosses]
TrainStep = Callable[[Inputs, TrainState], tuple[TrainState, Outcome]]
EvaluateStep = Callable[[AbstractModel | Adapted, Batch], Outcome]
Total = Callable[[Any], Any]


def make_train_step(
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float,
    mesh: Mesh | None = None,
    learns: tuple[str, ...] = ("*",),
    sums_in_stages: bool = True,
) -> TrainStep:
    """A compiled function from ((batch, learning rate, losses), state) to (state, outcome); it consumes the state.

    Other weights of the same losses need no other compilation. With a mesh, batches are stacked along a leading axis,
    one for each device. learns are those of initial_state; other arrays keep every bit. sums_in_stages is the model's
    has_long_sums.
    """

    def train_step(inputs: Inputs, state: TrainState) -> tuple[TrainState, Outcome]:
        batch, rate, losses = inputs
        gradient, outcome = gradient_and_outcome(state.model, batch, losses=losses, mesh=mesh, learns=learns)
        parameters, fixed = _parts(state.model, learns)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, parameters)
        parameters = jax.tree.map(lambda value, update: value + rate * update, parameters, updates)
        average = averaged(state.average, parameters, step=state.step, decay=ema_decay)
        finite = outcome.finite & jnp.isfinite(ravel_pytree(gradient)[0]).all()
        outcome = Outcome(outcome.loss, outcome.terms, outcome.errors, finite, outcome.sound)
        return TrainState(eqx.combine(parameters, fixed), average, optimizer_state, state.step + 1), outcome

    return compiled(train_step, donate="all-except-first", sums_in_stages=sums_in_stages)


def make_evaluate_step(losses: WeightedLosses, *, mesh: Mesh | None = None) -> EvaluateStep:
    """A compiled function from (model, batch) to its outcome; with a mesh batches are stacked as for training."""

    def evaluated(shared: PyTree, own: Batch, total: Total) -> tuple[PyTree, Bool[Array, " graphs"]]:
        loss, (terms, errors, sound) = _local_loss(*_parts(shared, ("*",)), own, losses=losses, total=total)
        return (loss, terms, errors), sound

    def evaluate_step(model: AbstractModel | Adapted, batch: Batch) -> Outcome:
        (loss, terms, errors), sound = _everywhere(evaluated, model, batch, mesh=mesh)
        return Outcome(loss, terms, errors, jnp.isfinite(loss), sound)

    return compiled(evaluate_step)


def gradient_and_outcome(
    model: AbstractModel | Adapted,
    batch: Batch,
    *,
    losses: WeightedLosses,
    mesh: Mesh | None = None,
    learns: tuple[str, ...] = ("*",),
) -> tuple[PyTree, Outcome]:
    """Gradient of the loss by the arrays that learn, and the outcome, both of all devices together."""

    def differentiated(shared: PyTree, own: Batch, total: Total) -> tuple[PyTree, Bool[Array, " graphs"]]:
        parameters, fixed, weighed = shared
        differentiate = jax.value_and_grad(_local_loss, has_aux=True)
        (loss, (terms, errors, sound)), gradient = differentiate(parameters, fixed, own, losses=weighed, total=total)
        return (gradient, loss, terms, errors), sound

    (gradient, loss, terms, errors), sound = _everywhere(
        differentiated, (*_parts(model, learns), losses), batch, mesh=mesh
    )
    return gradient, Outcome(loss, terms, errors, jnp.isfinite(loss), sound)


def _everywhere(
    work: Callable[[PyTree, Batch, Total], tuple[PyTree, Bool[Array, " graphs"]]],
    shared: PyTree,
    batch: Batch,
    *,
    mesh: Mesh | None,
) -> tuple[PyTree, Bool[Array, "devices graphs"]]:
    """The work on each device with its own batch; its numbers added over devices, its flags side by side."""
    if mesh is None:
        sums, sound = work(shared, batch, _same)
        return sums, sound[None]
    arrays, static = eqx.partition(shared, eqx.is_array)

    def on_device(arrays: PyTree, stacked: Batch) -> tuple[PyTree, Bool[Array, "devices graphs"]]:
        own = jax.tree.map(lambda leaf: leaf[0], stacked)
        sums, sound = work(eqx.combine(arrays, static), own, _total)
        return _total(sums), jax.lax.all_gather(sound, AXIS)

    spread = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(ALIKE, SPREAD),
        out_specs=ALIKE,
        check_vma=False,  # with it, JAX would sum the gradient once more by itself
    )
    found: tuple[PyTree, Bool[Array, "devices graphs"]] = spread(arrays, batch)
    return found


def _parts(model: AbstractModel | Adapted, learns: tuple[str, ...]) -> tuple[PyTree, PyTree]:
    parameters, fixed = eqx.partition(model, trainable(model, learns))
    return parameters, fixed


def _local_loss(
    parameters: PyTree, fixed: PyTree, batch: Batch, *, losses: WeightedLosses, total: Total
) -> tuple[Float[Array, ""], tuple[dict[str, Term], dict[str, Sums], Bool[Array, " graphs"]]]:
    """This device's part of the loss, with its sums; counts of other devices come in through total."""
    prediction, hessian = _predicted(effective(eqx.combine(parameters, fixed)), batch, needs=losses.needs)
    loss, terms = losses(prediction, hessian, batch, total=total)
    return loss, (terms, error_sums(prediction, batch), sound_graphs(prediction, hessian, batch))


def _predicted(
    model: AbstractModel, batch: Batch, *, needs: frozenset[str]
) -> tuple[Prediction, Float[Array, "rows atoms 3"]]:
    if "hessian_rows" in needs:
        dofs = batch.targets.hessian_dofs
        return predict_with_rows(model, batch.graph, dofs, written_out=len(dofs) <= WRITTEN_OUT)
    return predict(model, batch.graph), jnp.zeros_like(batch.targets.hessian_rows)


def _same(value: Any) -> Any:
    return value


def _total(tree: Any) -> Any:
    return jax.lax.psum(tree, AXIS)  # type: ignore[no-untyped-call]  # JAX has no annotations here
