"""The energies of isolated atoms that a fine-tuning starts with."""

import json

import numpy as np

from mlipdb.database import Database
from mlipdb.methods import find_method
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
