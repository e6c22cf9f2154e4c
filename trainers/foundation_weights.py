"""The trained model that a fine-tuning starts from."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from mlipdb.errors import ConfigError, TrainError
from mlipdb.structures import SYMBOLS
from mlipdb.trainers.archive import DOCUMENT
from mlipdb.trainers.checkpoint import load_checkpoint, load_model, split_head
from mlipdb.trainers.models.base import AbstractModel, AbstractTrunked
from mlipdb.trainers.models.heads import AbstractHeaded
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.run_files import best_checkpoint
from mlipdb.trainers.student import DataFacts


def fingerprint(path: str | Path) -> str:
    """The SHA-256 by which weights are known: of a file, or of the document of a checkpoint or run folder.

    The document holds the hashes of the arrays. A head named after the path is left aside. Raises TrainError where
    there is nothing.
    """
    place, _ = split_head(path)
    if not place.exists():
        raise TrainError(
            f"the foundation {place} is not there; put it back, or start another run --from a model that exists"
        )
    file = place if place.is_file() else (best_checkpoint(place) or place) / DOCUMENT
    return hashlib.sha256(file.read_bytes()).hexdigest()


def foundation_model(recipe: Recipe) -> AbstractTrunked:
    """The model that the recipe starts from, of one head.

    Raises TrainError where its weights are no longer those that the run was planned with, ConfigError for a model that
    cannot be fine-tuned.
    """
    wanted, found = recipe.finetune.sha256, fingerprint(recipe.finetune.foundation)
    if wanted and wanted != found:
        raise TrainError(
            f"the foundation {recipe.finetune.foundation} has other weights (SHA-256 {found[:12]}) than the run was "
            f"planned with ({wanted[:12]}); put the file back, or start another run"
        )
    return read_foundation(recipe.finetune.foundation)


def read_foundation(path: str) -> AbstractTrunked:
    """The model at a path, of one head. Raises ConfigError for one that cannot be fine-tuned."""
    model = load_model(path)
    if not isinstance(model, AbstractTrunked):
        raise ConfigError(
            f"{path} holds a {type(model).__name__}, which is not divided into trunk and readout and so cannot be "
            "fine-tuned; derive it from mlipdb.trainers.models.base.AbstractTrunked as well"
        )
    return model


def carried_heads(path: str) -> AbstractHeaded | None:
    """The model at a path with all of its heads; None where it has one readout, or the path names the head it means."""
    place, head = split_head(path)
    if head is not None or not place.is_dir():
        return None
    model = load_checkpoint(best_checkpoint(place) or place)
    return model if isinstance(model, AbstractHeaded) else None


def foundation_facts(model: AbstractModel) -> DataFacts:
    """What the foundation took from the data that it was trained on; a fine-tuning keeps it, E0 aside."""
    config = model.to_config()
    return DataFacts(
        atomic_numbers=tuple(model.atomic_numbers),
        e0=tuple(model.e0.tolist()),
        scale=float(config.get("scale", 1.0)),
        shift=float(config.get("shift", 0.0)),
        avg_n_neighbors=float(config.get("avg_n_neighbors", 1.0)),
    )


def require_known(model: AbstractModel, elements: Iterable[int], *, of: str) -> None:
    """Raise TrainError that names the elements which the foundation was not made for."""
    missing = sorted(set(elements) - set(model.atomic_numbers))
    if missing:
        known = " ".join(SYMBOLS[number] for number in model.atomic_numbers)
        raise TrainError(
            f"the foundation does not know {', '.join(SYMBOLS[number] for number in missing)}, which {of} has; it "
            f"knows {known}. Start --from a model that covers them, or narrow the subset"
        )
