"""Models in checkpoint folders: JSON that says which model, and its arrays. No pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipdb import registry
from mlipdb.errors import NotFoundError
from mlipdb.trainers.archive import read_arrays, read_document, write_archive
from mlipdb.trainers.arrays import named_arrays, with_arrays
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.models.heads import Head, head_place, heads_from_json, only_head
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
    """The model of a checkpoint folder, of a run's folder (its best checkpoint), or of a .nqx file, with one readout.

    ``PATH@HEAD`` is that of one head where there are several; without it, the first. Raises NotFoundError when the path
    is none of these or has no such head, CorruptError for a wrong version or checksum.
    """
    place, head = split_head(path)
    if place.suffix == ".nqx" and place.is_file():
        return only_head(load_nqx(place)[0], head)
    if not place.is_dir():
        raise NotFoundError(f"{place} is neither a checkpoint folder, nor a run's folder, nor a .nqx file")
    return only_head(load_checkpoint(best_checkpoint(place) or place), head)


def split_head(path: Path | str) -> tuple[Path, str | None]:
    """``PATH@HEAD`` as path and head; what exists is a path as it is, without a head."""
    whole = Path(path)
    before, divider, head = whole.name.rpartition("@")
    if not (divider and before and head) or whole.exists():
        return whole, None
    return whole.with_name(before), head


def read_notes(path: Path) -> dict[str, Any]:
    """What was kept beside the model of a checkpoint or run folder; energy is that of the head that path names."""
    place, name = split_head(path)
    document = read_document(best_checkpoint(place) or place)
    notes: dict[str, Any] = document["notes"]
    head = described_head(document, name)
    return notes if head is None else {**notes, "energy": head.energy, "method": head.method, "head": head.name}


def described_head(document: Mapping[str, Any], name: str | None) -> Head | None:
    """The head of that name that a checkpoint's document describes, the first for None; None where there are none.

    Raises NotFoundError for a name that is not there.
    """
    heads = heads_from_json(document["model"]["config"].get("heads", ()))
    place = head_place([head.name for head in heads], name)
    return heads[place] if heads else None


def load_checkpoint(place: Path) -> AbstractModel:
    """The model of a checkpoint folder as it is stored, with all of its heads."""
    document = read_document(place)
    filled: AbstractModel = with_arrays(blank_model(document), read_arrays(place, document, MODEL), where=str(place))
    return filled


def blank_model(document: Mapping[str, Any]) -> AbstractModel:
    """The model that a checkpoint's document describes, its arrays yet to be filled."""
    described = document["model"]
    model: AbstractModel = registry.load("mlipdb.models", described["name"]).from_config(described["config"])
    return model
