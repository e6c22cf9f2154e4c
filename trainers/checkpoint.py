"""Models in checkpoint folders: JSON that says which model, and its arrays. No pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipdb import registry
from mlipdb.errors import NotFoundError
from mlipdb.trainers.archive import read_arrays, read_document, write_archive
from mlipdb.trainers.arrays import named_arrays, with_arrays
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.models.nqx import load_nqx
from mlipdb.trainers.run_files import best_checkpoint

MODEL = "model"


def save_model(path: Path, model: AbstractModel, *, name: str, notes: Mapping[str, Any] | None = None) -> None:
    """Write a model to a new folder; name is its entry point of `mlipdb.models`, notes any JSON to keep with it."""
    write_archive(path, model_document(model, name=name, notes=notes), {MODEL: named_arrays(model)})


def model_document(model: AbstractModel, *, name: str, notes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON from which the model is rebuilt, arrays aside."""
    return {"model": {"name": name, "config": model.to_config()}, "notes": dict(notes or {})}


def load_model(path: Path | str) -> AbstractModel:
    """The model of a checkpoint folder, of a run's folder (its best checkpoint), or of a .nqx file.

    Raises NotFoundError when the path is none of these, CorruptError for a wrong version or checksum.
    """
    place = Path(path)
    if place.suffix == ".nqx" and place.is_file():
        return load_nqx(place)[0]
    if not place.is_dir():
        raise NotFoundError(f"{place} is neither a checkpoint folder, nor a run's folder, nor a .nqx file")
    return load_checkpoint(best_checkpoint(place) or place)


def read_notes(path: Path) -> dict[str, Any]:
    """What was kept beside the model of a checkpoint or run folder."""
    notes: dict[str, Any] = read_document(best_checkpoint(path) or path)["notes"]
    return notes


def load_checkpoint(place: Path) -> AbstractModel:
    """The model of a checkpoint folder."""
    document = read_document(place)
    filled: AbstractModel = with_arrays(blank_model(document), read_arrays(place, document, MODEL), where=str(place))
    return filled


def blank_model(document: Mapping[str, Any]) -> AbstractModel:
    """The model that a checkpoint's document describes, its arrays yet to be filled."""
    described = document["model"]
    model: AbstractModel = registry.load("mlipdb.models", described["name"]).from_config(described["config"])
    return model
