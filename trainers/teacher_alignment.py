"""What of a teacher's labels a training learns, and how its atomic energies are brought to the labels' energies."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool

from mlipdb import registry
from mlipdb.errors import TrainError
from mlipdb.trainers.alignment import Alignment, align
from mlipdb.trainers.conventions import unaligned_words
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.survey import Survey

Say = Callable[[str], None]


def align_teacher(found: Survey, *, e0: Mapping[int, float], recipe: Recipe, say: Say) -> Alignment | None:
    """How label energies differ from the sums of the teacher's atomic energies, over structures that have both.

    e0 is the student's, in eV. None where no loss with a weight asks for atomic energies. Raises TrainError where the
    teacher's labels of the structures to train on lack what a loss asks for.
    """
    asked = _asked(recipe)
    if "hessian_rows" in asked and not found.hessian_rows:
        if "atomic_energies" not in asked:
            raise TrainError(
                "the teacher's labels of the structures to train on hold no Hessian rows, and the recipe learns "
                "nothing else of it; run mlipdb label with this --teacher, --subset and --hessian-rows 4 first"
            )
        say("the teacher's labels hold no Hessian rows: that term counts nothing (mlipdb label --hessian-rows 4)")
    if "atomic_energies" not in asked:
        return None
    both = found.has_energy & found.has_atomic_energies
    if not both.any():
        raise TrainError(_nothing_to_align(found, energy=recipe.data.energy))
    return _aligned(found, both, e0=e0, recipe=recipe, say=say)


def _asked(recipe: Recipe) -> frozenset[str]:
    """Quantities that some loss with a weight needs."""
    weights = [*recipe.loss.items(), *recipe.distillation.loss.items()]
    needs = (registry.load("mlipdb.losses", name).needs for name, weight in weights if weight)
    return frozenset[str]().union(*needs)


def _nothing_to_align(found: Survey, *, energy: str) -> str:
    """Why atomic energies cannot be learnt, and what to do."""
    if found.has_atomic_energies.any():
        return (
            f"the teacher's atomic energies cannot be brought to the labels' convention: {int(found.has_energy.sum())} "
            f"structures to train on have {energy}, {int(found.has_atomic_energies.sum())} the teacher's atomic "
            "energies, and none has both; run mlipdb label with this --teacher and --subset, or choose another energy "
            "with --set data.energy=…"
        )
    if found.has_teacher_total.any() or found.hessian_rows:
        return (
            "the teacher's labels of the structures to train on hold no atomic energies. If this teacher has none, "
            "learn its Hessian rows alone with --set distillation.loss.atomic_energies_mae=0 (as the recipes hessian/… "
            "do); else run mlipdb label with this --teacher and --subset"
        )
    return "the teacher has labelled no structure to train on; run mlipdb label with this --teacher and --subset first"


def _aligned(
    found: Survey, both: Bool[np.ndarray, " structures"], *, e0: Mapping[int, float], recipe: Recipe, say: Say
) -> Alignment:
    totals = (found.energies - found.teacher_totals)[both] if found.has_teacher_total[both].all() else None
    differences = (found.energies - found.atomic_sums)[both]
    compositions = [each for each, taken in zip(found.compositions, both, strict=True) if taken]
    alignment = align(differences, compositions, before=totals, means=found.atomic_means(e0))
    say(
        f"teacher: {int(both.sum())} of {len(found)} structures to train on are labelled; energies differ from the "
        f"labels by {1e3 * alignment.rms_before:.1f} meV/atom rms, {1e3 * alignment.rms_after:.1f} after alignment"
    )
    if recipe.distillation.alignment == "none" and alignment.conventions_differ:
        say(f"WARNING: {unaligned_words(alignment, energy=recipe.data.energy)}")
    return alignment
