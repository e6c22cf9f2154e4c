"""Evaluation: errors of a run or checkpoint on the parts of a subset, beside those of E0 alone, kept as a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.errors import ConfigError, NotFoundError, TrainError, did_you_mean
from mlipdb.methods import find_method
from mlipdb.subsets import subset as subsets
from mlipdb.subsets.statistics import E0Fit, fit_e0
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.trainers.alignment import align
from mlipdb.trainers.batching.records import RecordSource
from mlipdb.trainers.batching.shapes import KnownShapes
from mlipdb.trainers.checkpoint import load_model, read_notes, split_head
from mlipdb.trainers.metrics import QUANTITIES, UNITS
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.part_errors import baseline_errors, model_errors
from mlipdb.trainers.runs import find_run, free_name, run_names, start_run, update_run

PARTS = ("train", "validation", "test")
ALIGNMENT_STRUCTURES = 500  # of the train part; enough for 89 offsets, and minutes even with a slow teacher


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is evaluated: a model, what to call it, which energy it predicts, and whether a run here trained it."""

    name: str
    path: Path
    energy: str
    method_id: int | None
    ours: bool


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A table: one row for each part of the split and way of predicting. name is that of the run row that keeps it."""

    name: str
    target: str
    subset: str
    energy: str
    rows: tuple[Mapping[str, Any], ...]


def evaluate(db: Database, target: str, *, subset: str, splits: Sequence[str] | None = None) -> Evaluation:
    """Errors of a run (its best checkpoint), a checkpoint folder or a .nqx file on parts of a subset.

    Each part has a row for the model and one for E0 fitted to the train part, forces and stress 0. A model that no run
    here trained may have another energy convention, so it has one more row: energies after offsets per element, fitted
    on at most 500 structures of the train part. Raises NotFoundError, TrainError for an empty part.
    """
    chosen = find_target(db, target)
    frozen = subsets.resolve(db, subset)
    model = load_model(chosen.path)
    source = RecordSource(db, cutoff=model.cutoff, needs=model.graph_needs, method_id=chosen.method_id)
    fit = _fit(source, frozen, energy=chosen.energy)
    offsets = None if chosen.ours else _offsets(model, source, frozen, energy=chosen.energy)
    known = KnownShapes()
    rows: list[dict[str, Any]] = []
    for part in _parts(frozen) if splits is None else splits:
        ids = _part(frozen, part)
        errors = model_errors(model, source, ids, energy=chosen.energy, known=known)
        rows.append({"split": part, "predicted_by": chosen.name, **errors.row()})
        if offsets is not None:
            rows.append({"split": part, "predicted_by": f"{chosen.name}, aligned", **errors.row(offsets=offsets)})
        baseline = baseline_errors(fit, source, ids, energy=chosen.energy)
        rows.append({"split": part, "predicted_by": "E0 only", **baseline.row()})
    return _keep(db, chosen, frozen, rows=rows)


def find_target(db: Database, text: str) -> Target:
    """The run of that name, else the checkpoint at that path; both may be followed by @HEAD.

    A head is compared with the energies and the method that it learnt. Raises NotFoundError when it is neither.
    """
    path, head = split_head(text)
    name = str(path) if head is not None else text
    if name in run_names(db):
        facts = find_run(db, name)
        if facts.kind != "train" or facts.path is None:
            raise TrainError(f"run {text!r} is of kind {facts.kind!r}; only trainings leave a model to evaluate")
        if head is not None:
            return _head_of_run(db, facts.path, text=text)
        data = facts.config["recipe"]["data"]
        return Target(name=text, path=facts.path, energy=data["energy"], method_id=facts.config["method_id"], ours=True)
    if not path.exists():
        raise NotFoundError(
            f"{text!r} is neither a run ({', '.join(run_names(db)) or 'there are none'}) nor a file or folder"
        )
    whole = Path(text)
    energy = None if path.is_file() else read_notes(whole).get("energy")
    return Target(
        name=whole.name, path=whole, energy=energy or "energy_uncorrected", method_id=None, ours=energy is not None
    )


def _head_of_run(db: Database, folder: Path, *, text: str) -> Target:
    """The head of a run that the text names as RUN@HEAD."""
    path = folder.with_name(f"{folder.name}@{text.rpartition('@')[2]}")
    notes = read_notes(path)
    method = find_method(db, notes["method"]) if notes.get("method") else None
    return Target(name=text, path=path, energy=notes["energy"], method_id=method, ours=True)


def _fit(source: RecordSource, subset: FrozenSubset, *, energy: str) -> E0Fit:
    """E0 of the labelled energies of the train part."""
    pairs = source.labels(_part(subset, "train"))
    labelled = [(structure, getattr(label, energy)) for structure, label in pairs if label is not None]
    labelled = [(structure, value) for structure, value in labelled if value is not None]
    if not labelled:
        raise TrainError(
            f"no structure of the train part of {subset.name!r} has {energy}; there is no E0 to compare with"
        )
    return fit_e0([structure.composition for structure, _ in labelled], np.array([value for _, value in labelled]))


def _offsets(model: AbstractModel, source: RecordSource, subset: FrozenSubset, *, energy: str) -> Mapping[int, float]:
    """Offsets per element that bring the model's energies to the labels, fitted on the train part, eV."""
    ids = _part(subset, "train")
    places = np.unique(np.linspace(0, len(ids) - 1, min(len(ids), ALIGNMENT_STRUCTURES)).round().astype(np.int64))
    errors = model_errors(model, source, ids[places], energy=energy)
    return align(-errors.energies, errors.compositions).offsets


def table(found: Evaluation) -> str:
    """The rows as text: errors in meV/atom, meV/Å and meV/Å³."""
    columns = [f"{quantity}_{kind}" for quantity in QUANTITIES for kind in ("mae", "rmse")]
    heads = [f"{column.replace('_', ' ')} {UNITS[column.partition('_')[0]]}" for column in columns]
    lines = [["split", "predicted by", "structures", *heads]]
    for row in found.rows:
        lines.append([row["split"], row["predicted_by"], str(row["structures"]), *(_cell(row[c]) for c in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _parts(subset: FrozenSubset) -> list[str]:
    """The parts that hold structures."""
    return [part for part in PARTS if len(subset.splits[part])]


def _part(subset: FrozenSubset, part: str) -> Int64[np.ndarray, " structures"]:
    if part not in PARTS:
        raise ConfigError(f"split {part!r} is unknown.{did_you_mean(part, PARTS)} Known: {', '.join(PARTS)}")
    ids = subset.splits[part]
    if not len(ids):
        sizes = ", ".join(f"{name} {len(subset.splits[name])}" for name in PARTS)
        raise TrainError(f"the {part} part of subset {subset.name!r} is empty ({sizes}); choose another with --split")
    return ids


def _keep(db: Database, target: Target, subset: FrozenSubset, *, rows: list[dict[str, Any]]) -> Evaluation:
    name = free_name(db, f"{target.name}-on-{subset.name}")
    start_run(
        db,
        name,
        kind="evaluate",
        config={"target": str(target.path), "subset": subset.name, "splits": [row["split"] for row in rows]},
        subset=subset,
        methods={"energy": target.energy, "label": target.method_id or "source"},
        parent=target.name,
    )
    update_run(db, name, state="finished", metrics={"rows": rows})
    return Evaluation(name=name, target=target.name, subset=subset.name, energy=target.energy, rows=tuple(rows))
