"""The energies of isolated atoms that a fine-tuning starts with."""

import json
from collections.abc import Iterable

import numpy as np

from mlipdb.database import Database
from mlipdb.errors import TrainError
from mlipdb.methods import find_method
from mlipdb.structures import SYMBOLS
from mlipdb.subsets.reference import parse_reference
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.subsets.training_statistics import Request, keep_statistics, one_method
from mlipdb.trainers.devices import from_first
from mlipdb.trainers.e0 import FROM_LABELS, UNCHANGED, ReferenceShift, given, reestimated
from mlipdb.trainers.found_part import FoundPart
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.part_errors import PartErrors, model_errors
from mlipdb.trainers.recipe import Recipe


def reference_shift(
    db: Database, subset: FrozenSubset, train: FoundPart, *, foundation: AbstractModel, recipe: Recipe
) -> ReferenceShift:
    """What the recipe's finetune.e0 adds to the foundation's E0s, the same in all processes.

    Raises ConfigError for a mode that there is not, NotFoundError that names an element without an E0.
    """

    def make() -> bytes:
        found = _shift(db, subset, train, foundation=foundation, recipe=recipe)
        return json.dumps(vars(found)).encode()

    values = json.loads(from_first(make))
    return ReferenceShift(**{**values, "offsets": {int(number): value for number, value in values["offsets"].items()}})


def require_decided(shift: ReferenceShift, elements: Iterable[int], *, of: str) -> None:
    """Raise TrainError that names the elements for which there is no E0 in the labels' convention.

    Without it the foundation's would stand for them, which are hundreds of eV off where labels are all-electron ones.
    """
    if shift.mode == UNCHANGED or not shift.structures:
        return
    if missing := [SYMBOLS[number] for number in sorted(set(elements) - shift.offsets.keys())]:
        raise TrainError(
            f"{of} has {', '.join(missing)}, but no structure to train on that has an energy: E0s ({shift.mode}) are "
            "not known for them. Leave such structures out of the subset, widen its train part, give their E0s "
            "(--e0 FILE.json, or isolated with single atoms in the database), or keep the foundation's with --e0 "
            "foundation, where the labels are of its convention"
        )


def _shift(
    db: Database, subset: FrozenSubset, train: FoundPart, *, foundation: AbstractModel, recipe: Recipe
) -> ReferenceShift:
    mode = recipe.finetune.e0
    errors = _errors(train, foundation=foundation, recipe=recipe)
    differences, compositions = -errors.energies, errors.compositions
    if mode == FROM_LABELS:
        return reestimated(differences, compositions)
    before = dict(zip(foundation.atomic_numbers, foundation.e0.tolist(), strict=True))
    after = {} if mode == UNCHANGED else _of_data(db, subset, train, recipe=recipe)
    return given(mode, before=before, after=after, differences=differences, compositions=compositions)


def _errors(train: FoundPart, *, foundation: AbstractModel, recipe: Recipe) -> PartErrors:
    """Of the foundation's energies, on the structures that have one."""
    labelled = train.ids[train.survey.has_energy]
    if not len(labelled):
        return PartErrors(structures=0, energies=np.zeros(0), compositions=())
    return model_errors(foundation, train.source, labelled, energy=recipe.data.energy)


def _of_data(db: Database, subset: FrozenSubset, train: FoundPart, *, recipe: Recipe) -> dict[int, float]:
    """E0s as a training from scratch finds them, in eV by atomic number."""
    request = Request(cutoff=None, energy=recipe.data.energy, reference=parse_reference(recipe.finetune.e0))
    known = recipe.data.method
    method = find_method(db, known) if known else one_method(db, subset, part="train")
    found = keep_statistics(db, subset, request, train.survey.part_data(pairs=False), method_id=method)
    return dict(found.e0)
