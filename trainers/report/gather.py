"""Everything that a report says of a run, gathered from the catalog, the run's folder and its model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.errors import ConfigError, TrainError, did_you_mean
from mlipdb.subsets import subset as subsets
from mlipdb.subsets.splits import PARTS
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.trainers.arrays import count_parameters
from mlipdb.trainers.batching.records import RecordSource
from mlipdb.trainers.checkpoint import load_model
from mlipdb.trainers.evaluate import find_target
from mlipdb.trainers.report.errors import (
    GroupError,
    WorstStructure,
    element_errors,
    space_group_errors,
    total_errors,
    worst_structures,
)
from mlipdb.trainers.report.predictions import Predictions, predict_structures
from mlipdb.trainers.report.provenance import MethodUse, SourceUse, catalogued, method_uses, source_uses
from mlipdb.trainers.run_summary import Errors, evaluations
from mlipdb.trainers.runs import RunFacts, find_run
from mlipdb.trainers.trackers import EpochPace, read_pace

SAMPLE = 2000  # structures that are predicted: parity and errors by element are clear with fewer than all


@dataclass(frozen=True, eq=False, kw_only=True)
class RunReport:
    """A run, what it was made from, and the errors of its best checkpoint on structures of one part of its subset.

    part_size is how many structures that part has; those predicted are a sample of it where they are fewer.
    """

    run: RunFacts
    recipe: str
    subset: FrozenSubset
    sources: Sequence[SourceUse]
    methods: Sequence[MethodUse]
    pace: Sequence[EpochPace]
    evaluations: Mapping[str, Errors]
    part: str
    part_size: int
    parameters: int
    predictions: Predictions
    errors: Errors
    elements: Sequence[GroupError]
    space_groups: Sequence[GroupError]
    worst_energies: Sequence[WorstStructure]
    worst_forces: Sequence[WorstStructure]

    def describe(self) -> dict[str, Any]:
        """The numbers as plain values, without the predictions themselves."""
        return {
            "run": self.run.name,
            "part": self.part,
            "structures": len(self.predictions),
            "of": self.part_size,
            "errors": dict(self.errors),
            "elements": [vars(group) for group in self.elements],
            "space_groups": [vars(group) for group in self.space_groups],
            "worst_energies": [vars(structure) for structure in self.worst_energies],
            "worst_forces": [vars(structure) for structure in self.worst_forces],
            "pace": [vars(line) for line in self.pace],
        }


def gather_report(
    db: Database, name: str, *, part: str | None = None, sample: int = SAMPLE, seed: int = 0
) -> RunReport:
    """Predict a part of a run's subset (default: test, else validation, else train) and gather the rest.

    sample is how many structures of the part are predicted, 0 for all, and seed which. Raises NotFoundError for an
    unknown run, TrainError for one that is no training, has no checkpoint yet, or whose subset has changed.
    """
    run = find_run(db, name)
    target = find_target(db, name)
    subset = _subset(db, run)
    part = _part(subset, part)
    if not (target.path / "checkpoints.json").is_file():
        raise TrainError(f"run {name!r} has no checkpoint yet ({run.state}); report it once an epoch has ended")
    model = load_model(target.path)
    source = RecordSource(db, cutoff=model.cutoff, needs=model.graph_needs, method_id=target.method_id)
    ids = _sample(subset.splits[part], count=sample, seed=seed)
    found = predict_structures(model, source, ids, energy=target.energy)
    entries = catalogued(db, ids)
    recipe = target.path / "recipe.toml"
    return RunReport(
        run=run,
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        subset=subset,
        sources=source_uses(db, subset),
        methods=method_uses(db, subset, run.config),
        pace=read_pace(target.path),
        evaluations=evaluations(db, run),
        part=part,
        part_size=len(subset.splits[part]),
        parameters=count_parameters(model),
        predictions=found,
        errors=total_errors(found),
        elements=element_errors(found),
        space_groups=space_group_errors(found, entries),
        worst_energies=worst_structures(found, entries, by="energy"),
        worst_forces=worst_structures(found, entries, by="forces"),
    )


def _subset(db: Database, run: RunFacts) -> FrozenSubset:
    """The run's subset as it was."""
    if run.subset is None:
        raise TrainError(f"the subset of run {run.name!r} is no longer in the database; nothing to report on")
    subset = subsets.load(db, run.subset)
    if subset.hash != run.subset_hash:
        raise TrainError(f"subset {subset.name!r} is no longer the one of run {run.name!r}; evaluate the run instead")
    return subset


def _part(subset: FrozenSubset, part: str | None) -> str:
    filled = [name for name in reversed(PARTS) if len(subset.splits[name])]
    if part is None:
        return filled[0]
    if part not in filled:
        raise ConfigError(
            f"split {part!r} is unknown or empty.{did_you_mean(part, PARTS)} Subset {subset.name!r} has: "
            f"{', '.join(f'{name} {len(subset.splits[name])}' for name in filled)}"
        )
    return part


def _sample(ids: Int64[np.ndarray, " structures"], *, count: int, seed: int) -> Int64[np.ndarray, " sample"]:
    """So many of the ids, ascending; all of them for 0."""
    if not count or count >= len(ids):
        return ids
    return np.sort(np.random.default_rng(seed).choice(ids, size=count, replace=False))
