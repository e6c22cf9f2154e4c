"""Everything that a training needs before its first step, from a database, a subset and a recipe."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from sqlalchemy import select

from mlipdb.catalog import StructureElement, SubsetMember
from mlipdb.database import Database
from mlipdb.errors import TrainError
from mlipdb.labels import ENERGY_KINDS
from mlipdb.methods import find_method
from mlipdb.structures import SYMBOLS
from mlipdb.subsets.reference import parse_reference
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.subsets.training_statistics import (
    Request,
    TrainingStatistics,
    described_statistics,
    keep_statistics,
    kept_statistics,
    one_method,
)
from mlipdb.trainers.alignment import Alignment, align
from mlipdb.trainers.batching.feed import Feed
from mlipdb.trainers.batching.oversized import oversized_text
from mlipdb.trainers.batching.packing import Sizes, choose_shapes, joined
from mlipdb.trainers.batching.pad import GraphShape
from mlipdb.trainers.batching.records import RecordSource
from mlipdb.trainers.batching.targets import Convention
from mlipdb.trainers.conventions import check_conventions, unaligned_words
from mlipdb.trainers.devices import from_first
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.student import DataFacts, data_facts, student_edges
from mlipdb.trainers.survey import Survey, survey
from mlipdb.trainers.teacher_forces import teacher_forces_mae

GIB = 1024**3
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """One part of the split: what makes its batches, and the sizes that plans are made from."""

    feed: Feed
    sizes: Sizes


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """Train and validation parts, the shapes that batches are padded to, and what the model takes from the data.

    report is plain data for the run row: counts, what is missing, how the teacher's energies fit. teacher_forces_mae is
    of the teacher against the labels, meV/Å; None where the recipe does not ask for it or nothing has both.
    """

    train: Part
    validation: Part
    shapes: tuple[GraphShape, ...]
    facts: DataFacts
    report: dict[str, Any]
    teacher_forces_mae: float | None = None

    @property
    def digest(self) -> bytes:
        """A checksum of all that batches and models are made from; processes that train together have the same."""
        tables = [part.sizes.table.tobytes() + part.feed.ids.tobytes() for part in (self.train, self.validation)]
        return hashlib.sha256(b"".join(tables) + repr((self.shapes, self.facts)).encode()).digest()


@dataclass(frozen=True, eq=False, kw_only=True)
class _Found:
    """What one pass over a part of the data found, and where its records come from."""

    ids: Int64[np.ndarray, " structures"]
    source: RecordSource
    survey: Survey


def prepare(
    db: Database, subset: FrozenSubset, *, recipe: Recipe, teacher_id: int | None, devices: int, say: Say
) -> Prepared:
    """Read the train and validation parts once, fit E0s and the alignment, choose batch shapes.

    Raises TrainError when something that the recipe asks for is not in the data.
    """
    train = _find(db, subset, part="train", recipe=recipe, teacher_id=teacher_id)
    validation = _find(db, subset, part="validation", recipe=recipe, teacher_id=None)
    _check_labels(train.survey, recipe=recipe)
    check_conventions(db, subset, train.survey, method_id=label_method(db, recipe))
    facts = data_facts(_statistics(db, subset, train.survey, recipe=recipe), elements=subset_elements(db, subset))
    _say_unseen(train.survey, facts=facts, say=say)
    alignment = None if teacher_id is None else _align_teacher(train.survey, recipe=recipe, say=say)
    convention = _convention(facts, alignment, recipe=recipe)
    rows = 0 if teacher_id is None else recipe.distillation.rows_per_structure
    forces_mae = _teacher_forces_mae(db, subset, recipe=recipe, teacher_id=teacher_id, say=say)
    shapes = _shapes(train, validation, recipe=recipe, devices=devices, say=say)
    return Prepared(
        train=_part(train, convention=convention, recipe=recipe, rows=rows),
        validation=_part(validation, convention=convention, recipe=recipe, rows=0),
        shapes=shapes,
        facts=facts,
        report=_report(train.survey, validation.survey, facts=facts, alignment=alignment)
        | ({} if forces_mae is None else {"teacher_forces_mae": forces_mae}),
        teacher_forces_mae=forces_mae,
    )


def _teacher_forces_mae(
    db: Database, subset: FrozenSubset, *, recipe: Recipe, teacher_id: int | None, say: Say
) -> float | None:
    """What hessian_halving compares with, where it is on: of the validation part, or of the train part without one."""
    if teacher_id is None or not recipe.distillation.hessian_halving:
        return None
    part = "validation" if len(subset.splits["validation"]) else "train"
    found = teacher_forces_mae(db, subset.splits[part], teacher_id=teacher_id, method_id=label_method(db, recipe))
    if found is None:
        say(
            f"no structure of the {part} part has forces of the teacher beside labelled ones: the weight of Hessian "
            "rows is never halved (mlipdb label --teacher … on the whole subset)"
        )
    else:
        say(f"teacher: forces differ from the labels by {found:.1f} meV/Å (mean, {part} part)")
    return found


def _statistics(db: Database, subset: FrozenSubset, found: Survey, *, recipe: Recipe) -> TrainingStatistics:
    """E0s, mean, scale and neighbours of the train part: those that are kept, else from the survey, and kept."""
    cutoff, needs = student_edges(recipe.model)
    whole = needs.max_neighbours is None  # else the edges are not all neighbours, and the model wants no mean of them
    request = Request(
        cutoff=cutoff if whole else None, energy=recipe.data.energy, reference=parse_reference(recipe.data.e0)
    )
    method = label_method(db, recipe)
    if method is None:
        method = one_method(db, subset, part="train", choose="--set data.method=NUMBER")

    def make() -> bytes:
        known = kept_statistics(db, subset, request, method_id=method)
        made = known or keep_statistics(db, subset, request, found.part_data(pairs=whole), method_id=method)
        return json.dumps(made.describe()).encode()

    return described_statistics(json.loads(from_first(make)))


def label_method(db: Database, recipe: Recipe) -> int | None:
    """The method whose labels are learnt, a teacher's (pseudo-labels) as well; None for those of the structures."""
    return find_method(db, recipe.data.method) if recipe.data.method else None


def subset_elements(db: Database, subset: FrozenSubset) -> frozenset[int]:
    """Atomic numbers of all parts of the subset."""
    member = SubsetMember.structure_id == StructureElement.structure_id
    query = select(StructureElement.atomic_number).join(SubsetMember, member).where(SubsetMember.subset_id == subset.id)
    with db.session() as session:
        return frozenset(session.scalars(query.distinct()))


def _find(db: Database, subset: FrozenSubset, *, part: str, recipe: Recipe, teacher_id: int | None) -> _Found:
    ids = subset.splits[part]
    cutoff, needs = student_edges(recipe.model)
    source = RecordSource(
        db,
        cutoff=cutoff,
        needs=needs,
        method_id=label_method(db, recipe),
        teacher_id=teacher_id,
        budget=int(recipe.data.cache_gib * GIB * (0.9 if part == "train" else 0.1)),
        threads=recipe.data.threads,
    )
    return _Found(ids=ids, source=source, survey=survey(source.stream(ids), energy=recipe.data.energy))


def _part(found: _Found, *, convention: Convention, recipe: Recipe, rows: int) -> Part:
    feed = Feed(
        source=found.source,
        ids=found.ids,
        convention=convention,
        row_count=rows,
        seed=recipe.seed,
        threads=recipe.data.threads,
    )
    return Part(feed=feed, sizes=found.survey.sizes)


def _shapes(train: _Found, validation: _Found, *, recipe: Recipe, devices: int, say: Say) -> tuple[GraphShape, ...]:
    """Shapes for both parts, so that validation compiles no more of them; a step's graphs are shared by devices."""
    sizes = joined([train.survey.sizes, validation.survey.sizes])
    graphs, edges = max(1, recipe.batch.graphs // devices), recipe.batch.edges // devices
    shapes = choose_shapes(sizes, graphs=graphs, edges=edges)
    if text := oversized_text(sizes, np.concatenate([train.ids, validation.ids]), shapes=shapes):
        say(text)
    return shapes


def _check_labels(found: Survey, *, recipe: Recipe) -> None:
    if not len(found):
        raise TrainError("the subset's train part is empty; freeze a larger subset or other fractions")
    if not found.has_energy.any():
        kinds = ", ".join(kind for kind in ENERGY_KINDS if kind != recipe.data.energy)
        raise TrainError(
            f"no structure to train on has {recipe.data.energy}; choose another with --set data.energy=… ({kinds})"
        )


def _unseen(train: Survey, facts: DataFacts) -> list[str]:
    """Symbols of the subset's elements that no structure to train on has."""
    return [SYMBOLS[number] for number in facts.atomic_numbers if number not in train.elements]


def _say_unseen(train: Survey, *, facts: DataFacts, say: Say) -> None:
    """Without this, an error of electronvolts in a held-out part looks like a bad model."""
    if unseen := _unseen(train, facts):
        say(
            f"WARNING: {', '.join(unseen)} are in the subset but in no structure to train on; energies of held-out "
            "structures with them cannot be right. Widen the subset or its train part"
        )


def _align_teacher(found: Survey, *, recipe: Recipe, say: Say) -> Alignment:
    """How label energies differ from the sums of the teacher's atomic energies, over structures that have both."""
    both = found.has_energy & found.has_atomic_energies
    if not both.any():
        raise TrainError(
            "the teacher has labelled no structure to train on with atomic energies; run mlipdb label with this "
            "--teacher and --subset first"
        )
    if found.hessian_rows == 0 and recipe.distillation.loss.get("hessian_rows"):
        say("the teacher's labels hold no Hessian rows: that term counts nothing (mlipdb label --hessian-rows 4)")
    totals = (found.energies - found.teacher_totals)[both] if found.has_teacher_total[both].all() else None
    differences = (found.energies - found.atomic_sums)[both]
    alignment = align(differences, _where(found.compositions, both), before=totals)
    say(
        f"teacher: {int(both.sum())} of {len(found)} structures to train on are labelled; energies differ from the "
        f"labels by {1e3 * alignment.rms_before:.1f} meV/atom rms, {1e3 * alignment.rms_after:.1f} after alignment"
    )
    if recipe.distillation.alignment == "none" and alignment.conventions_differ:
        say(f"WARNING: {unaligned_words(alignment, energy=recipe.data.energy)}")
    return alignment


def _convention(facts: DataFacts, alignment: Alignment | None, *, recipe: Recipe) -> Convention:
    offsets = None
    if alignment is not None and recipe.distillation.alignment == "least-squares":
        offsets = {number: alignment.offsets.get(number, 0.0) for number in facts.atomic_numbers}
    e0 = dict(zip(facts.atomic_numbers, facts.e0, strict=True))
    return Convention(energy=recipe.data.energy, e0=e0, offsets=offsets)


def _report(train: Survey, validation: Survey, *, facts: DataFacts, alignment: Alignment | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "structures": {"train": len(train), "validation": len(validation)},
        "without_label": {
            "energy": int((~train.has_energy).sum()),
            "forces": train.forces_missing,
            "stress": train.stress_missing,
        },
        "elements_not_in_train": _unseen(train, facts),
        "scale": facts.scale,
        "shift": facts.shift,
        "avg_n_neighbors": facts.avg_n_neighbors,
    }
    if alignment is not None:
        report["alignment"] = alignment.describe()
        report["without_label"]["atomic_energies"] = int((~train.has_atomic_energies).sum())
        report["hessian_rows"] = train.hessian_rows
    return report


def _where(compositions: tuple[dict[int, int], ...], chosen: Bool[np.ndarray, " structures"]) -> list[dict[int, int]]:
    return [composition for composition, taken in zip(compositions, chosen, strict=True) if taken]
