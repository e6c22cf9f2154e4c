"""The training loop: the only one. It takes what was prepared and a state, and leaves checkpoints and metrics."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mlipdb.errors import TrainError
from mlipdb.trainers.archive import read_arrays, read_document
from mlipdb.trainers.arrays import named_arrays, with_arrays
from mlipdb.trainers.batching.feed import FedBatch
from mlipdb.trainers.batching.packing import group_by_devices, plan_epoch, plan_in_order
from mlipdb.trainers.checkpoint import MODEL, blank_model, model_document
from mlipdb.trainers.losses import WeightedLosses, make_losses
from mlipdb.trainers.metrics import add_up, summary, weighted_loss
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.models.fitted import BATCHES, AbstractFitted
from mlipdb.trainers.optimizer import make_optimizer
from mlipdb.trainers.pace import Pace, make_pace
from mlipdb.trainers.position import Position
from mlipdb.trainers.prepare import Part, Prepared
from mlipdb.trainers.progress import EpochEnd, Reporter, StepProgress
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.run_files import add_checkpoint, last_checkpoint
from mlipdb.trainers.step import AXIS, Outcome, TrainState, initial_state, make_evaluate_step, make_train_step
from mlipdb.trainers.student import make_student

STATE = "state"
OnEpoch = Callable[[Position], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """What stays the same during a training: data, recipe, where files go, who listens.

    weights are those of the loss terms in force; devices are used side by side.
    """

    prepared: Prepared
    recipe: Recipe
    weights: Mapping[str, float]
    folder: Path
    reporter: Reporter
    on_epoch: OnEpoch
    devices: tuple[jax.Device, ...]

    @property
    def mesh(self) -> Mesh | None:
        """The devices as one axis; None for one device, which needs no sharding."""
        return Mesh(np.array(self.devices), (AXIS,)) if len(self.devices) > 1 else None


def run_training(run: Run, *, resume: bool) -> Position:
    """Train to the end of the last epoch, from the start or from the last checkpoint; where it ended.

    Raises TrainError that names the structures of a batch whose loss or gradient is not finite; the checkpoints before
    it stay.
    """
    state, position = _start(run, resume=resume)
    train_losses, validation_losses = make_losses(run.weights), make_losses(run.recipe.loss)
    steps = _Steps(
        train=make_train_step(
            make_optimizer(run.recipe.optimizer), ema_decay=run.recipe.optimizer.ema_decay, mesh=run.mesh
        ),
        losses=train_losses,
        evaluate=make_evaluate_step(validation_losses),
    )
    progress = StepProgress(total_epochs=run.recipe.epochs)
    while position.epoch < run.recipe.epochs:
        state = _train_epoch(run, steps, state=state, position=position, progress=progress)
        _end_epoch(run, steps, state=state, position=position)
    return position


@dataclass(frozen=True, eq=False, kw_only=True)
class _Steps:
    """The compiled steps, and the losses that they add up."""

    train: Any
    losses: WeightedLosses
    evaluate: Any


def _start(run: Run, *, resume: bool) -> tuple[TrainState, Position]:
    """The first state, or with resume that of the last checkpoint, if there is one yet; and where it is."""
    place = last_checkpoint(run.folder) if resume else None
    if place is None:
        return initial_state(_new_model(run), make_optimizer(run.recipe.optimizer)), Position()
    document = read_document(place)
    state = initial_state(blank_model(document), make_optimizer(run.recipe.optimizer))
    position = Position(**document["notes"]["position"])
    return with_arrays(state, read_arrays(place, document, STATE), where=str(place)), position


def _new_model(run: Run) -> AbstractModel:
    """A student with random weights, and with what it fits on batches where it does that."""
    model = make_student(run.recipe.model, run.prepared.facts, seed=run.recipe.seed)
    if isinstance(model, AbstractFitted) and not model.is_fitted:
        train = run.prepared.train
        plan = plan_epoch(train.sizes, run.prepared.shapes, seed=run.recipe.seed, epoch=0)[:BATCHES]
        model = model.fitted([fed.batch.graph for fed in train.feed.batches(plan)])
        run.reporter.say(f"scale factors fitted on {len(plan)} batches")
    return model


def _train_epoch(
    run: Run, steps: _Steps, *, state: TrainState, position: Position, progress: StepProgress
) -> TrainState:
    """The rest of the epoch from position.group on."""
    recipe, train, devices = run.recipe, run.prepared.train, len(run.devices)
    plan = plan_epoch(train.sizes, run.prepared.shapes, seed=recipe.seed, epoch=position.epoch)
    groups = group_by_devices(plan, devices)
    waiting: deque[tuple[Outcome, FedBatch, int]] = deque()
    pace = _pace(run, position)
    losses = steps.losses.weighed(pace.weights)
    for fed in _fed(train, groups[position.group :], devices=devices, epoch=position.epoch):
        rate = pace.rate(step=position.group, steps=len(groups))
        state, outcome = steps.train((jax.tree.map(jnp.asarray, fed.batch), jnp.float32(rate), losses), state)
        position.group += 1
        waiting.append((outcome, fed, position.group))
        # One step late, so that the host prepares the next step while the device computes this one.
        save = recipe.checkpoint.every_steps and position.group % recipe.checkpoint.every_steps == 0
        while len(waiting) > (0 if save else 1):
            _settle(run, steps, waiting.popleft(), position=position, progress=progress, groups=len(groups))
        if save and position.group < len(groups):
            _save(run, state, position=position, best=False)
    while waiting:
        _settle(run, steps, waiting.popleft(), position=position, progress=progress, groups=len(groups))
    return state


def _fed(part: Part, groups: list[Any], *, devices: int, epoch: int) -> Any:
    if devices == 1:
        return part.feed.batches([group[0] for group in groups], epoch=epoch)
    return part.feed.stacks(groups, devices=devices, epoch=epoch)


def _settle(
    run: Run,
    steps: _Steps,
    taken: tuple[Outcome, FedBatch, int],
    *,
    position: Position,
    progress: StepProgress,
    groups: int,
) -> None:
    """Wait for a step's outcome, stop if it is not finite, and add it to the epoch."""
    outcome, fed, number = taken
    if not bool(outcome.finite):
        raise TrainError(
            f"loss {float(outcome.loss)} or its gradient is not finite in epoch {position.epoch + 1}, in the batch of "
            f"structures {', '.join(map(str, sorted(fed.ids.tolist())))}. The checkpoint before it is kept; look at "
            "those structures (mlipdb show ID), or lower optimizer.learning_rate or optimizer.clip_norm"
        )
    add_up(position.terms, {name: outcome.terms[name] for name in steps.losses.names})
    add_up(position.errors, outcome.errors)
    progress.advance(epoch=position.epoch, batch=number, batches=groups, structures=len(fed.ids))
    progress.loss = float(outcome.loss)
    progress.maes = summary(position.errors)
    run.reporter.step(progress)


def _end_epoch(run: Run, steps: _Steps, *, state: TrainState, position: Position) -> None:
    """Validate, note the epoch, and save; the lowest validation loss makes the best checkpoint."""
    pace = _pace(run, position)
    train = {"loss": weighted_loss(position.terms, pace.weights), **summary(position.errors)}
    due = (position.epoch + 1) % run.recipe.validate_every == 0 or position.epoch + 1 == run.recipe.epochs
    validation = _validate(run, steps, state) if due else None
    entry = {"epoch": position.epoch + 1, "train": train, "validation": validation, **pace.describe()}
    position.history.append(entry)
    better = position.take_if_best(_watched(run, train=train, validation=validation))
    position.next_epoch()
    _save(run, state, position=position, best=better)
    run.on_epoch(position)
    run.reporter.epoch(EpochEnd(entry=entry, epochs=run.recipe.epochs, best=better))
    for line in pace.changes(_pace(run, position)):
        run.reporter.say(line)


def _pace(run: Run, position: Position) -> Pace:
    """The rate and weights of the epoch that position is in, from the epochs behind."""
    return make_pace(
        run.recipe,
        run.weights,
        history=position.history,
        epoch=position.epoch,
        validates=len(run.prepared.validation.sizes) > 0,
        teacher=run.prepared.teacher_forces_mae,
    )


def _watched(run: Run, *, train: Mapping[str, Any], validation: Mapping[str, Any] | None) -> float | None:
    """The loss that chooses the best epoch: validation's, or the training loss where nothing validates."""
    if validation is not None:
        return float(validation["loss"])
    return None if len(run.prepared.validation.sizes) else float(train["loss"])


def _validate(run: Run, steps: _Steps, state: TrainState) -> dict[str, float | None] | None:
    """Loss and errors of the averaged model on the validation part; None when that part is empty."""
    part = run.prepared.validation
    if not len(part.sizes):
        return None
    model = state.averaged_model
    terms: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    for fed in part.feed.batches(plan_in_order(part.sizes, run.prepared.shapes)):
        outcome = steps.evaluate(model, jax.tree.map(jnp.asarray, fed.batch))
        add_up(terms, outcome.terms)
        add_up(errors, outcome.errors)
    return {"loss": weighted_loss(terms, run.recipe.loss), **summary(errors)}


def _save(run: Run, state: TrainState, *, position: Position, best: bool) -> None:
    """Write the averaged model, for use, and the whole state, to go on from."""
    model = state.averaged_model
    name = str(run.recipe.model.get("name", "nequix"))
    notes = {"position": position.to_json(), "energy": run.recipe.data.energy}
    document = model_document(model, name=name, notes=notes)
    groups = {MODEL: named_arrays(model), STATE: named_arrays(state)}
    add_checkpoint(run.folder, position.name, document, groups, best=best)
