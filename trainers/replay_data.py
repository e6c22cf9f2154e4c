"""What is replayed beside the target's data, so that a fine-tuning does not forget it."""

from dataclasses import dataclass, replace

import numpy as np

from mlipdb.database import Database
from mlipdb.errors import ConfigError, TrainError
from mlipdb.methods import find_method
from mlipdb.subsets import subset as subsets
from mlipdb.subsets.training_statistics import one_method
from mlipdb.trainers.alignment import Alignment, align
from mlipdb.trainers.batching.targets import Convention
from mlipdb.trainers.found_part import FoundPart, Reading, find_part
from mlipdb.trainers.foundation_weights import require_known
from mlipdb.trainers.metrics import MILLI
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.part_errors import model_errors
from mlipdb.trainers.recipe import Recipe

SAMPLE = 500  # structures on which the foundation is held against the labels
ENOUGH = 3  # structures for each offset
FAR = 0.2  # eV/atom that no foundation is off on what it was trained on
FEW = 1 / 3  # of a batch that are the target's, below which larger batches are advised
LEAST_SHARE = 0.1  # of the target beside the replay in an epoch; below it the target is repeated


@dataclass(frozen=True, eq=False, kw_only=True)
class ReplayData:
    """The train and validation parts of the replayed subset, with the foundation's E0s; method names their labels'.

    fit is how the foundation's energies differ from those labels; None where they are its own.
    """

    train: FoundPart
    validation: FoundPart
    convention: Convention
    method: str
    fit: Alignment | None = None

    @property
    def warning(self) -> str | None:
        """What to say where the labels are of another convention than the foundation learnt; None where they may be."""
        return None if self.fit is None else convention_warning(self.fit, energy=self.convention.energy)


def convention_warning(fit: Alignment, *, energy: str) -> str | None:
    """What to say of labels that differ so from the foundation that they cannot be what it learnt; else None.

    Few structures for each offset say so only where no error could be as large.
    """
    if not (fit.conventions_differ if fit.structures >= ENOUGH * len(fit.offsets) else fit.rms_before > FAR):
        return None
    before, after = (MILLI * rms for rms in (fit.rms_before, fit.rms_after))
    return (
        f"WARNING: energies of the foundation differ from {fit.structures} replayed labels ({energy}) by {before:.1f} "
        f"meV/atom rms, by {after:.1f} after offsets per element: they are not what it learnt, and replaying them "
        "changes what it knows. Choose the energy that it learnt (--set finetune.replay_energy=…), labels of its level "
        "of theory (--set finetune.replay_method=NUMBER), or --strategy pseudo-replay"
    )


def find_replay(db: Database, recipe: Recipe, *, foundation: AbstractModel, reading: Reading) -> ReplayData:
    """Read what the recipe replays; reading is that of the target's train part, whose edges it shares.

    Raises TrainError where structures have no label or elements that the foundation does not know, ConfigError where
    labels are of several methods.
    """
    tuned = recipe.finetune
    frozen = subsets.load(db, tuned.replay)
    own = tuned.replay_method
    choose = "--set finetune.replay_method=NUMBER"
    method = find_method(db, own) if own else one_method(db, frozen, part="train", choose=choose)
    energy = tuned.replay_energy or recipe.data.energy
    known = replace(reading, energy=energy, method_id=method, teacher_id=None)
    train = find_part(db, frozen.splits["train"], known, recipe=recipe)
    validation = find_part(db, frozen.splits["validation"], replace(known, memory=reading.memory / 9), recipe=recipe)
    for part in (train, validation):
        require_known(foundation, part.survey.elements, of=f"replay subset {tuned.replay!r}")
    if not train.survey.has_energy.any():
        raise TrainError(
            f"no structure to train on of replay subset {tuned.replay!r} has {energy}; choose another with "
            "--set finetune.replay_energy=… or finetune.replay_method=NUMBER"
        )
    if tuned.replay_bound:
        _check_bound(validation, name=tuned.replay)
    e0 = dict(zip(foundation.atomic_numbers, foundation.e0.tolist(), strict=True))
    return ReplayData(
        train=train,
        validation=validation,
        convention=Convention(energy=energy, e0=e0),
        method=db.method(method).name,
        fit=None if db.method(method).weights_sha256 == tuned.sha256 else _fit(train, foundation, energy=energy),
    )


def _fit(train: FoundPart, foundation: AbstractModel, *, energy: str) -> Alignment:
    """How label and foundation differ on a sample of the structures to train on."""
    labelled = train.ids[train.survey.has_energy]
    places = np.unique(np.linspace(0, len(labelled) - 1, min(len(labelled), SAMPLE)).round().astype(np.int64))
    errors = model_errors(foundation, train.source, labelled[places], energy=energy)
    return align(-errors.energies, errors.compositions)


def _check_bound(validation: FoundPart, *, name: str) -> None:
    """Raise ConfigError where nothing would tell that the bound is broken."""
    structures = len(validation.ids)
    if validation.survey.forces_missing == structures:
        what = "no structure to validate with" if not structures else "no forces on what it is validated with"
        raise ConfigError(
            f"finetune.replay_bound cannot be measured: replay subset {name!r} has {what}; freeze it with a validation "
            "part that has forces, let some be picked (--replay-size), or set finetune.replay_bound=0"
        )


def repeats(targets: int, replayed: int) -> int:
    """How many more times than once the target's structures come in an epoch, so that they are not lost in it."""
    return int(LEAST_SHARE * replayed / targets) if targets < LEAST_SHARE * replayed else 0


def proportions(targets: int, replayed: int, *, graphs: int) -> list[str]:
    """What to say of so many target structures beside so many replayed ones.

    graphs is how many structures a batch has; 0 where it is counted otherwise.
    """
    times = 1 + repeats(targets, replayed)
    share = targets * times / (targets * times + replayed)
    said = []
    if times > 1:
        said.append(
            f"{targets} structures to train on are few beside {replayed} replayed ones: each comes {times} times in an "
            "epoch"
        )
    if graphs and share < FEW:
        said.append(
            f"a batch of {graphs} holds about {graphs * share:.1f} structures of the target. With --set "
            f"batch.graphs={round(graphs / share)} it holds {graphs}, as without replay, in as many steps: fewer steps "
            "forget less"
        )
    return said
