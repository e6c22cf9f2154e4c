"""Runs in a few numbers: one in short, and several side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlipdb.database import Database
from mlipdb.errors import TrainError
from mlipdb.trainers.runs import RunFacts, find_run, list_runs
from mlipdb.trainers.settings import flattened

Errors = Mapping[str, float | int | None]


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """Trainings side by side, in the order that was asked for.

    settings are those recipe keys and data that differ, with one value for each run, None where it has no such key.
    errors are of the epoch whose checkpoint is used, and of evaluations on the run's own subset: by part, then by
    quantity, one number for each run, in meV/atom, meV/Å and meV/Å³, None where there is none.
    """

    names: tuple[str, ...]
    settings: Mapping[str, tuple[Any, ...]]
    errors: Mapping[str, Mapping[str, tuple[float | None, ...]]]

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        return {"runs": list(self.names), "settings": dict(self.settings), "errors": dict(self.errors)}


def summarise(run: RunFacts) -> dict[str, Any]:
    """A run in one line: model, subset, epochs, errors where it was best, and how long it has taken in seconds."""
    entry = best_entry(run) or {}
    errors = entry.get("validation") or entry.get("train") or {}
    recipe = run.config.get("recipe", {})
    return {
        "name": run.name,
        "kind": run.kind,
        "state": run.state,
        "model": recipe.get("model", {}).get("name"),
        "subset": run.subset,
        "epochs": len(run.metrics.get("epochs", ())) if run.kind == "train" else None,
        "of": recipe.get("epochs"),
        "best_epoch": entry.get("epoch"),
        "energy_mae": errors.get("energy_mae"),
        "forces_mae": errors.get("forces_mae"),
        "stress_mae": errors.get("stress_mae"),
        "started_at": run.started_at.isoformat(timespec="seconds"),
        "seconds": None if run.finished_at is None else round((run.finished_at - run.started_at).total_seconds(), 1),
    }


def best_entry(run: RunFacts) -> Mapping[str, Any] | None:
    """What is known of the epoch whose checkpoint is used: the best, else the last; None before the first."""
    epochs: Sequence[Mapping[str, Any]] = run.metrics.get("epochs", ())
    best = run.metrics.get("best", {}).get("epoch")
    if best == 0:  # of a fine-tuning that found nothing better than what it started with
        return {"epoch": 0, "train": None, **run.metrics.get("start", {})}
    return next((entry for entry in epochs if entry["epoch"] == best), epochs[-1] if epochs else None)


def evaluations(db: Database, run: RunFacts) -> dict[str, Errors]:
    """The latest errors of a training on each part of its own subset, from the evaluations that were kept."""
    found: dict[str, Errors] = {}
    for other in list_runs(db, kind="evaluate", parent=run.name):
        if other.subset_hash == run.subset_hash:
            rows = [row for row in other.metrics.get("rows", ()) if row["predicted_by"] == run.name]
            found |= {row["split"]: _numbers(row) for row in rows}
    return found


def _numbers(row: Mapping[str, Any]) -> dict[str, float | int | None]:
    return {name: value for name, value in row.items() if not isinstance(value, str)}


def compare_runs(db: Database, names: Sequence[str]) -> RunComparison:
    """Trainings side by side. Raises NotFoundError, and TrainError for a run that is no training."""
    runs = [find_run(db, name) for name in names]
    for run in runs:
        if run.kind != "train":
            raise TrainError(
                f"run {run.name!r} is of kind {run.kind!r}; only trainings are compared. Give {run.parent!r}"
            )
    settings = [_settings(db, run) for run in runs]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    values = {key: tuple(each.get(key) for each in settings) for key in keys}
    return RunComparison(
        names=tuple(names),
        settings={key: each for key, each in values.items() if any(value != each[0] for value in each)},
        errors=_errors(db, runs),
    )


def _settings(db: Database, run: RunFacts) -> dict[str, Any]:
    """Everything that was chosen for a run: subset, teacher and recipe."""
    teacher = run.methods.get("teacher")
    names = {"subset": run.subset, "teacher": None if teacher is None else db.method(teacher).name}
    return names | {"subset.hash": run.subset_hash[:12]} | dict(flattened(run.config.get("recipe", {})))


def _errors(db: Database, runs: Sequence[RunFacts]) -> dict[str, dict[str, tuple[float | None, ...]]]:
    """By part and quantity; of the train part as the training itself saw it, which is while the weights moved."""
    found: dict[str, dict[str, tuple[float | None, ...]]] = {}
    tables = [_parts(db, run) for run in runs]
    for part in ("while training", "validation", "test", "train"):
        lines = [table.get(part) or {} for table in tables]
        quantities = [f"{name}_{kind}" for name in ("energy", "forces", "stress") for kind in ("mae", "rmse")]
        rows = {quantity: tuple(line.get(quantity) for line in lines) for quantity in quantities}
        known = {quantity: row for quantity, row in rows.items() if any(value is not None for value in row)}
        found |= {part: known} if known else {}
    return found


def _parts(db: Database, run: RunFacts) -> dict[str, Errors]:
    entry = best_entry(run) or {}
    own = {"while training": entry.get("train"), "validation": entry.get("validation")}
    return {**{part: errors for part, errors in own.items() if errors}, **evaluations(db, run)}
