"""The training loop: the only one. It takes what was prepared and a state, and leaves checkpoints and metrics."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mlipdb.errors import TrainError
from mlipdb.trainers.background import Background
from mlipdb.trainers.batching.feed import FedBatch
from mlipdb.trainers.batching.packing import PlannedBatch, group_by_devices, plan_epoch, plan_in_order
from mlipdb.trainers.devices import Devices
from mlipdb.trainers.graph import REPLAY, TARGET
from mlipdb.trainers.heads_of_batch import REPLAYED, split_heads
from mlipdb.trainers.losses import WeightedLosses, make_losses
from mlipdb.trainers.metrics import add_up, summary, weighted_loss
from mlipdb.trainers.optimizer import make_optimizer
from mlipdb.trainers.pace import Pace, make_pace
from mlipdb.trainers.position import Position
from mlipdb.trainers.prepare import Part, Prepared
from mlipdb.trainers.progress import EpochEnd, Reporter, StepProgress, errors_text
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.step import Outcome, TrainState, make_evaluate_step, make_train_step
from mlipdb.trainers.train_state import first_state, keep_state
from mlipdb.trainers.watch import may_be_best, reason_to_stop

Group = tuple[PlannedBatch, ...]
OnEpoch = Callable[[Position], None]
LOOK = (
    "The checkpoint before it is kept; look at those structures (mlipdb show ID), or lower optimizer.learning_rate or "
    "optimizer.clip_norm"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """What stays the same during a training: data, recipe, where files go, who listens.

    weights are those of the loss terms in force; devices are used side by side. on_epoch hears of an epoch when its
    checkpoint is on disk.
    """

    prepared: Prepared
    recipe: Recipe
    weights: Mapping[str, float]
    folder: Path
    reporter: Reporter
    on_epoch: OnEpoch
    devices: Devices


def run_training(run: Run, *, resume: bool) -> Position:
    """Train to the end of the last epoch, from the start or from the last checkpoint; where it ended.

    Raises TrainError that names the structures of a batch whose loss or gradient is not finite; the checkpoints before
    it stay.
    """
    state, position = first_state(
        run.prepared, run.recipe, folder=run.folder, devices=run.devices, resume=resume, say=run.reporter.say
    )
    tuned = run.recipe.finetune
    settings = run.recipe.loss_settings
    train_losses = make_losses(run.weights, settings=settings, replay_weight=tuned.replay_weight)
    validation_losses = make_losses(run.recipe.loss, settings=settings)
    optimizer, mesh = make_optimizer(run.recipe.optimizer), run.devices.mesh
    progress = StepProgress(total_epochs=run.recipe.epochs)
    with Background() as saving:
        steps = _Steps(
            train=make_train_step(
                optimizer,
                ema_decay=run.recipe.optimizer.ema_decay,
                mesh=mesh,
                learns=tuned.learns,
                sums_in_stages=state.model.has_long_sums,
            ),
            losses=train_losses,
            evaluate=make_evaluate_step(validation_losses, mesh=mesh),
            saving=saving,
        )
        if tuned.foundation and position.start is None:
            position.start = _start(run, steps, state)
            if tuned.replay_bound:  # the one model that surely is within the bound
                position.take_start(_watched(run, train={}, validation=position.start["validation"]))
                _save(run, steps, state, position=position, best=True)
        while position.epoch < run.recipe.epochs and stopped(run.recipe, position) is None:
            state = _train_epoch(run, steps, state=state, position=position, progress=progress)
            _end_epoch(run, steps, state=state, position=position)
    if reason := stopped(run.recipe, position):
        run.reporter.say(f"stopped after epoch {position.epoch}: {reason}")
    return position


def stopped(recipe: Recipe, position: Position) -> str | None:
    """Why a run ends before its last epoch; None where it goes on, or is through."""
    if position.epoch >= recipe.epochs:
        return None
    return reason_to_stop(recipe.finetune, position.history, start=position.start, best_epoch=position.best_epoch)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Steps:
    """The compiled steps, the losses that they add up, and what writes checkpoints beside them."""

    train: Any
    losses: WeightedLosses
    evaluate: Any
    saving: Background


def _train_epoch(
    run: Run, steps: _Steps, *, state: TrainState, position: Position, progress: StepProgress
) -> TrainState:
    """The rest of the epoch from position.group on."""
    recipe, train = run.recipe, run.prepared.train
    plan = plan_epoch(train.sizes, run.prepared.shapes, seed=recipe.seed, epoch=position.epoch)
    groups = group_by_devices(plan, run.devices.count)
    waiting: deque[tuple[Outcome, Group, int]] = deque()
    pace = _pace(run, position)
    losses = steps.losses.weighed(pace.weights)
    for fed in _fed(train, groups[position.group :], devices=run.devices, epoch=position.epoch):
        rate = jnp.float32(pace.rate(step=position.group, steps=len(groups)))
        state, outcome = steps.train((run.devices.spread(fed.batch), *run.devices.alike((rate, losses))), state)
        waiting.append((outcome, groups[position.group], position.group + 1))
        position.group += 1
        # One step late, so that the host prepares the next step while the device computes this one.
        save = recipe.checkpoint.every_steps and position.group % recipe.checkpoint.every_steps == 0
        while len(waiting) > (0 if save else 1):
            _settle(run, steps, waiting.popleft(), position=position, progress=progress, groups=len(groups))
        if save and position.group < len(groups):
            _save(run, steps, state, position=position, best=False)
    while waiting:
        _settle(run, steps, waiting.popleft(), position=position, progress=progress, groups=len(groups))
    return state


def _fed(part: Part, groups: Sequence[Group], *, devices: Devices, epoch: int) -> Iterator[FedBatch]:
    if devices.count == 1:
        return part.feed.batches([group[0] for group in groups], epoch=epoch)
    return part.feed.stacks(groups, devices=devices.count, epoch=epoch, rank=devices.rank)


def _settle(
    run: Run,
    steps: _Steps,
    taken: tuple[Outcome, Group, int],
    *,
    position: Position,
    progress: StepProgress,
    groups: int,
) -> None:
    """Wait for a step's outcome, stop if it is not finite, and add it to the epoch."""
    outcome, group, number = taken
    if not bool(outcome.finite):
        raise TrainError(
            f"loss {float(outcome.loss)} or its gradient is not finite in epoch {position.epoch + 1}, "
            f"{_culprits(run, outcome, group, part=run.prepared.train)}. {LOOK}"
        )
    steps.saving.poll()
    add_up(position.terms, _in_order(outcome.terms, names=steps.losses.names))
    add_up(position.errors, outcome.errors)
    progress.advance(
        epoch=position.epoch, batch=number, batches=groups, structures=sum(len(planned.members) for planned in group)
    )
    progress.loss = float(outcome.loss)
    progress.maes = summary(position.errors)
    run.reporter.step(progress)


def _in_order(terms: Mapping[str, Any], *, names: Sequence[str]) -> dict[str, Any]:
    """Terms in the order of the losses, then those of the replay, where there is one."""
    return {name: terms[name] for name in [*names, *(REPLAYED + name for name in names)] if name in terms}


def _culprits(run: Run, outcome: Outcome, group: Group, *, part: Part) -> str:
    """The structures whose labels or predictions are not finite; all of the group where that says nothing."""
    ids, flags = part.feed.ids, np.asarray(outcome.sound)
    taken = [(batch, own) for batch, own in zip(run.devices.batches(group), flags, strict=True) if batch is not None]
    everyone = sorted(int(number) for batch, _ in taken for number in ids[batch.members])
    unsound = sorted(int(number) for batch, own in taken for number in ids[batch.members][~own[: len(batch.members)]])
    if unsound and len(unsound) < len(everyone):
        return f"because a label or prediction is not of structures {', '.join(map(str, unsound))}"
    return f"in the batch of structures {', '.join(map(str, everyone))}"


def _end_epoch(run: Run, steps: _Steps, *, state: TrainState, position: Position) -> None:
    """Validate, note the epoch, and save; the lowest validation loss makes the best checkpoint."""
    pace = _pace(run, position)
    train, replayed = _learnt(position, weights=pace.weights)
    due = (position.epoch + 1) % run.recipe.validate_every == 0 or position.epoch + 1 == run.recipe.epochs
    validation = _validate(run, steps, state) if due else None
    entry = {"epoch": position.epoch + 1, "train": train, "validation": validation, **pace.describe()}
    if run.prepared.replay is not None:
        entry["replay"] = {"train": replayed, "validation": _validate_replay(run, steps, state) if due else None}
    position.history.append(entry)
    allowed = may_be_best(run.recipe.finetune, entry, start=position.start)
    better = position.take_if_best(_watched(run, train=train, validation=validation) if allowed else None)
    position.next_epoch()
    _save(run, steps, state, position=position, best=better)
    run.reporter.epoch(EpochEnd(entry=entry, epochs=run.recipe.epochs, best=better))
    for line in pace.changes(_pace(run, position)):
        run.reporter.say(line)


def _learnt(position: Position, *, weights: Mapping[str, float]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loss and errors of an epoch's steps: on the target, and on what is replayed."""
    parts = zip(split_heads(position.terms), split_heads(position.errors), strict=True)
    target, replayed = ({"loss": weighted_loss(terms, weights), **summary(errors)} for terms, errors in parts)
    return target, replayed


def _start(run: Run, steps: _Steps, state: TrainState) -> dict[str, Any]:
    """Errors before the first step: of the foundation, but for its E0s."""
    found = {"validation": _validate(run, steps, state), "replay": _validate_replay(run, steps, state)}
    for part, errors in found.items():
        if errors is not None:
            run.reporter.say(f"before the first step: {part} loss {errors['loss']:.4g}  {errors_text(errors)}")
    return found


def _pace(run: Run, position: Position) -> Pace:
    """The rate and weights of the epoch that position is in, from the epochs behind."""
    return make_pace(
        run.recipe,
        run.weights,
        history=position.history,
        epoch=position.epoch,
        validates=len(run.prepared.validation.sizes) > 0,
        teacher=run.prepared.teacher_forces_mae,
        start=position.start,
    )


def _watched(run: Run, *, train: Mapping[str, Any], validation: Mapping[str, Any] | None) -> float | None:
    """The loss that chooses the best epoch: validation's, or the training loss where nothing validates."""
    if validation is not None:
        return float(validation["loss"])
    return None if len(run.prepared.validation.sizes) or not train else float(train["loss"])


def _validate(run: Run, steps: _Steps, state: TrainState) -> dict[str, float | None] | None:
    """Loss and errors of the averaged model on the validation part; None when that part is empty."""
    return _evaluated(run, steps, state, part=run.prepared.validation, head=TARGET)


def _validate_replay(run: Run, steps: _Steps, state: TrainState) -> dict[str, float | None] | None:
    """The same on the part of what is replayed that is not learnt; None without replay."""
    replay = run.prepared.replay
    return None if replay is None else _evaluated(run, steps, state, part=replay.validation, head=REPLAY)


def _evaluated(run: Run, steps: _Steps, state: TrainState, *, part: Part, head: int) -> dict[str, float | None] | None:
    """Loss and errors of the averaged model on the structures of a part, all of one head.

    Raises TrainError with the structures of a batch where they are not finite: nothing can be compared with that.
    """
    if not len(part.sizes):
        return None
    model = state.averaged_model
    terms: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    groups = group_by_devices(plan_in_order(part.sizes, run.prepared.shapes), run.devices.count)
    for group, fed in zip(groups, _fed(part, groups, devices=run.devices, epoch=0), strict=True):
        outcome = steps.evaluate(model, run.devices.spread(fed.batch))
        numbers = [float(outcome.loss), *(float(value) for sums in outcome.errors.values() for value in sums)]
        if not np.isfinite(numbers).all():
            raise TrainError(
                f"loss {float(outcome.loss)} or an error is not finite in validation, "
                f"{_culprits(run, outcome, group, part=part)}. {LOOK}"
            )
        add_up(terms, outcome.terms)
        add_up(errors, outcome.errors)
    terms, errors = split_heads(terms)[head], split_heads(errors)[head]
    return {"loss": weighted_loss(terms, run.recipe.loss), **summary(errors)}


def _save(run: Run, steps: _Steps, state: TrainState, *, position: Position, best: bool) -> None:
    """Copy the state now, and write it beside the next steps; only the first process does."""
    if run.devices.is_first:
        reached = position.copy()
        write = keep_state(run.folder, state, recipe=run.recipe, position=reached, devices=run.devices, best=best)
        steps.saving.start(write, then=lambda: None if reached.group else run.on_epoch(reached))
