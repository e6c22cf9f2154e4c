"""Labels that mean different things are not learnt together: one method, one kind of energy, one meaning of E0."""

from collections.abc import Sequence

from mlipdb.database import Database
from mlipdb.errors import TrainError
from mlipdb.labels import ENERGY_KINDS
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.subsets.training_statistics import part_methods
from mlipdb.trainers.alignment import Alignment
from mlipdb.trainers.survey import Survey


def check_conventions(db: Database, subset: FrozenSubset, train: Survey, *, method_id: int | None) -> None:
    """Raise TrainError where labels to train on, or those to validate with, are not of one convention.

    method_id is the method whose labels are learnt; None for those that came with the structures, which are of one
    method in the train part.
    """
    learnt = None if method_id is not None else part_methods(db, subset, part="train")
    others = [] if learnt is None else sorted({*part_methods(db, subset, part="validation")} - {*learnt})
    if learnt and others:
        raise TrainError(
            f"the labels to validate with are of another method ({_listed(db, others)}) than those to train on "
            f"({_listed(db, learnt)}), and their energies are not comparable; choose one with "
            "--set data.method=NUMBER, or freeze a subset of one method"
        )
    if len(train.includes_e0) > 1:
        raise TrainError(
            "some of the teacher's atomic energies contain E0 and others do not, so that no offset an element brings "
            "both to the labels' convention; drop them with mlipdb labels drop and label those structures again"
        )


def unaligned_words(alignment: Alignment, *, energy: str) -> str:
    """What to say where energies differ by composition and the recipe does not align them."""
    others = ", ".join(kind for kind in ENERGY_KINDS if kind != energy)
    return (
        f"composition explains {alignment.r2:.0%} of that: the energy conventions differ, and --align none leaves it "
        f"so. Leave --align none out, or learn the energy that the teacher has: --set data.energy=… ({others})"
    )


def _listed(db: Database, numbers: Sequence[int]) -> str:
    methods = db.methods()
    return ", ".join(f"{number}: {methods[number].name}" for number in numbers)
