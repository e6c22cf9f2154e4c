"""The state that a training starts from, and how it is kept in checkpoints to go on from."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlipdb import registry
from mlipdb.errors import TrainError
from mlipdb.trainers.archive import read_arrays, read_document
from mlipdb.trainers.arrays import named_arrays, with_arrays
from mlipdb.trainers.batching.packing import plan_epoch
from mlipdb.trainers.checkpoint import MODEL, blank_model, model_document
from mlipdb.trainers.devices import Devices, from_first
from mlipdb.trainers.foundation import start_model
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.models.fitted import BATCHES, AbstractFitted
from mlipdb.trainers.models.kernel import choose_kernel, with_kernel
from mlipdb.trainers.models.lora import Adapted, adapt, effective
from mlipdb.trainers.optimizer import make_optimizer
from mlipdb.trainers.position import Position
from mlipdb.trainers.prepare import Prepared, Say
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.run_files import add_checkpoint, last_checkpoint
from mlipdb.trainers.step import TrainState, initial_state
from mlipdb.trainers.student import make_student

STATE = "state"
DOCUMENT = "document"  # beside the arrays when a state goes from process to process; no field of TrainState


def first_state(
    prepared: Prepared, recipe: Recipe, *, folder: Path, devices: Devices, resume: bool, say: Say
) -> tuple[TrainState, Position]:
    """The state of step 0, or with resume that of the folder's last checkpoint, if there is one yet; on all devices.

    Of several processes the first makes or reads it, and the others get its bits. Raises TrainError where the
    checkpoint is from within an epoch that was shared by another number of devices.
    """

    def own() -> tuple[TrainState, Position]:
        place = last_checkpoint(folder) if resume else None
        if place is None:
            return _initial(_new_model(prepared, recipe, say=say), recipe), Position()
        document = read_document(place)
        _check_devices(document["notes"], devices, say=say)
        return _filled(document, read_arrays(place, document, STATE), recipe=recipe, where=str(place))

    if devices.rank.count == 1:
        state, position = own()
    else:
        document, arrays = _unpacked(from_first(lambda: _packed(*own(), recipe=recipe)))
        state, position = _filled(document, arrays, recipe=recipe, where="the first process")
    kernel = from_first(lambda: choose_kernel(state, recipe.kernel, say=say).encode()).decode()
    return devices.alike(with_kernel(state, kernel)), position


def keep_state(
    folder: Path, state: TrainState, *, recipe: Recipe, position: Position, devices: Devices, best: bool
) -> Callable[[], None]:
    """What writes a checkpoint: the averaged model, for use, and the whole state, to go on from.

    The arrays are copied now, since the next step takes the state's memory; the writing may be done by another thread.
    """
    model = effective(state.averaged_model)
    document = _document(model, recipe=recipe, position=position, devices=devices.count)
    groups = {MODEL: _copied(named_arrays(model)), STATE: _copied(named_arrays(state))}
    return lambda: add_checkpoint(folder, position.name, document, groups, best=best)


def _document(model: AbstractModel, *, recipe: Recipe, position: Position, devices: int) -> dict[str, Any]:
    notes = {"position": position.to_json(), "energy": recipe.data.energy, "devices": devices}
    return model_document(model, name=registry.name_of("mlipdb.models", type(model)), notes=notes)


def _copied(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array(array, copy=True) for name, array in arrays.items()}


def _initial(model: AbstractModel | Adapted, recipe: Recipe) -> TrainState:
    return initial_state(model, make_optimizer(recipe.optimizer), recipe.finetune.learns)


def _new_model(prepared: Prepared, recipe: Recipe, *, say: Say) -> AbstractModel | Adapted:
    """The foundation, prepared; without one, a student with random weights, and with what it fits on batches."""
    if recipe.finetune.foundation:
        return start_model(prepared, recipe, say=say)
    model = make_student(recipe.model, prepared.facts, seed=recipe.seed)
    if isinstance(model, AbstractFitted) and not model.is_fitted:
        train = prepared.train
        plan = plan_epoch(train.sizes, prepared.shapes, seed=recipe.seed, epoch=0)[:BATCHES]
        model = model.fitted([fed.batch.graph for fed in train.feed.batches(plan)])
        say(f"scale factors fitted on {len(plan)} batches")
    return model


def _check_devices(notes: Mapping[str, Any], devices: Devices, *, say: Say) -> None:
    """Batches depend on the number of devices: within an epoch nothing else can be gone on with."""
    before = notes.get("devices", devices.count)  # older checkpoints do not say
    if before == devices.count:
        return
    if notes["position"]["group"]:
        raise TrainError(
            f"the last checkpoint is from within epoch {notes['position']['epoch'] + 1}, of which {before} device(s) "
            f"had shared the batches, and now there are {devices.count}; go on with {before}, to the end of that epoch "
            "at least"
        )
    say(f"WARNING: {before} device(s) before, now {devices.count}: batches are others than they would have been")


def _filled(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray], *, recipe: Recipe, where: str
) -> tuple[TrainState, Position]:
    state = _initial(_adapted(blank_model(document), recipe), recipe)
    return with_arrays(state, arrays, where=where), Position(**document["notes"]["position"])


def _adapted(model: AbstractModel, recipe: Recipe) -> AbstractModel | Adapted:
    """The model with room for the low-rank changes that the recipe asks for, if it does."""
    tuned = recipe.finetune
    if not tuned.lora_rank:
        return model
    return adapt(model, rank=tuned.lora_rank, alpha=tuned.lora_alpha, key=jax.random.key(0))


def _packed(state: TrainState, position: Position, *, recipe: Recipe) -> bytes:
    document = _document(effective(state.model), recipe=recipe, position=position, devices=0)
    text = np.frombuffer(json.dumps(document).encode(), np.uint8)
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **{DOCUMENT: text}, **named_arrays(state))
    return stream.getvalue()


def _unpacked(packed: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(io.BytesIO(packed), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    document: dict[str, Any] = json.loads(arrays.pop(DOCUMENT).tobytes())
    return document, arrays
