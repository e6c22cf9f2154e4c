"""Everything that a training needs before its first step, from a database, a subset and a recipe."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
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
from mlipdb.trainers.alignment import Alignment
from mlipdb.trainers.batching.feed import Feed, Replay
from mlipdb.trainers.batching.oversized import oversized_text
from mlipdb.trainers.batching.packing import Sizes, choose_shapes, joined
from mlipdb.trainers.batching.pad import GraphShape
from mlipdb.trainers.batching.targets import Convention
from mlipdb.trainers.conventions import check_conventions
from mlipdb.trainers.devices import from_first
from mlipdb.trainers.found_part import FoundPart, Reading, find_part
from mlipdb.trainers.foundation_reference import reference_shift, require_decided
from mlipdb.trainers.foundation_weights import foundation_facts, foundation_model, require_known
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.replay_data import ReplayData, find_replay, proportions, repeats
from mlipdb.trainers.student import DataFacts, data_facts, student_edges
from mlipdb.trainers.survey import Survey
from mlipdb.trainers.teacher_alignment import align_teacher
from mlipdb.trainers.teacher_forces import teacher_forces_mae

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """One part of the split: what makes its batches, and the sizes that plans are made from."""

    feed: Feed
    sizes: Sizes


@dataclass(frozen=True, eq=False, kw_only=True)
class Replayed:
    """What is replayed: the part to validate with, its energy convention, and the name of its labels' method."""

    validation: Part
    convention: Convention
    method: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """Train and validation parts, the shapes that batches are padded to, and what the model takes from the data.

    The train part ends with what is replayed, where there is replay. report is plain data for the run row: counts, what
    is missing, how the teacher's energies fit. teacher_forces_mae is of the teacher against the labels, meV/Å; None
    where the recipe does not ask for it or nothing has both.
    """

    train: Part
    validation: Part
    shapes: tuple[GraphShape, ...]
    facts: DataFacts
    report: dict[str, Any]
    teacher_forces_mae: float | None = None
    replay: Replayed | None = None
    method: str = ""  # of the labels, by name; empty for those that came with the structures

    @property
    def digest(self) -> bytes:
        """A checksum of all that batches and models are made from; processes that train together have the same."""
        parts = [self.train, self.validation, *([] if self.replay is None else [self.replay.validation])]
        tables = [part.sizes.table.tobytes() + part.feed.ids.tobytes() for part in parts]
        return hashlib.sha256(b"".join(tables) + repr((self.shapes, self.facts)).encode()).digest()


@dataclass(frozen=True, eq=False, kw_only=True)
class _Data:
    """What was read: the parts of the subset, and what is replayed."""

    train: FoundPart
    validation: FoundPart
    replay: ReplayData | None

    @property
    def parts(self) -> list[FoundPart]:
        """All of them."""
        return [
            self.train,
            self.validation,
            *([] if self.replay is None else [self.replay.train, self.replay.validation]),
        ]


def prepare(
    db: Database, subset: FrozenSubset, *, recipe: Recipe, teacher_id: int | None, devices: int, say: Say
) -> Prepared:
    """Read the train and validation parts once, fit E0s and the alignment, choose batch shapes.

    Raises TrainError when something that the recipe asks for is not in the data.
    """
    elements, foundation = subset_elements(db, subset), _foundation(recipe)
    data = _read(db, subset, recipe=recipe, foundation=foundation, teacher_id=teacher_id)
    _check_labels(data.train.survey, recipe=recipe)
    check_conventions(db, subset, data.train.survey, method_id=label_method(db, recipe))
    if foundation is None:
        shift, facts = None, data_facts(_statistics(db, subset, data.train.survey, recipe=recipe), elements=elements)
    else:
        require_known(foundation, elements, of=f"subset {subset.name!r}")
        shift = reference_shift(db, subset, data.train, foundation=foundation, recipe=recipe)
        facts = shift.applied(foundation_facts(foundation))
        require_decided(shift, elements, of=f"subset {subset.name!r}")
        say(shift.text)
    if data.replay is not None and data.replay.warning:
        say(data.replay.warning)
    unseen = _unseen(data.train.survey, elements, say=say)
    alignment = None
    if teacher_id is not None:
        alignment = align_teacher(data.train.survey, e0=_e0(facts), recipe=recipe, say=say)
    forces_mae = _teacher_forces_mae(db, subset, recipe=recipe, teacher_id=teacher_id, say=say)
    rows = 0 if teacher_id is None else recipe.distillation.rows_per_structure
    report = _report(data, facts=facts, unseen=unseen, alignment=alignment)
    report |= {} if teacher_id is None else {"hessian_rows": data.train.survey.hessian_rows}
    report["batch"] = _batch(recipe, devices)
    report |= {} if shift is None else {"e0": shift.describe()}
    return Prepared(
        **_parts(data, convention=_convention(facts, alignment, recipe=recipe), recipe=recipe, rows=rows, say=say),
        shapes=_shapes(data.parts, recipe=recipe, devices=devices, say=say),
        facts=facts,
        report=report | ({} if forces_mae is None else {"teacher_forces_mae": forces_mae}),
        teacher_forces_mae=forces_mae,
        method=recipe.data.method,
    )


def _foundation(recipe: Recipe) -> AbstractModel | None:
    return foundation_model(recipe) if recipe.finetune.foundation else None


def _read(
    db: Database, subset: FrozenSubset, *, recipe: Recipe, foundation: AbstractModel | None, teacher_id: int | None
) -> _Data:
    """One pass over everything that is learnt and validated with, with the edges of the model that is trained."""
    cutoff, needs = student_edges(recipe.model)
    if foundation is not None:
        cutoff, needs = float(foundation.cutoff), foundation.graph_needs
    replays = foundation is not None and bool(recipe.finetune.replay) and recipe.finetune.replay_weight > 0
    reading = Reading(
        cutoff=cutoff,
        needs=needs,
        energy=recipe.data.energy,
        method_id=label_method(db, recipe),
        memory=0.45 if replays else 0.9,
    )
    taught = replace(reading, teacher_id=teacher_id)
    return _Data(
        train=find_part(db, subset.splits["train"], taught, recipe=recipe),
        validation=find_part(
            db, subset.splits["validation"], replace(reading, memory=reading.memory / 9), recipe=recipe
        ),
        replay=find_replay(db, recipe, foundation=foundation, reading=reading) if replays and foundation else None,
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


def _parts(data: _Data, *, convention: Convention, recipe: Recipe, rows: int, say: Say) -> dict[str, Any]:
    """The parts of Prepared; those to train on have so many Hessian rows a structure.

    With replay all feeds name heads, so that no batch needs a compilation of its own.
    """
    make = partial(_part, convention=convention, recipe=recipe)
    if data.replay is None:
        return {"train": make(data.train, row_count=rows), "validation": make(data.validation)}
    replay, sizes = data.replay, (len(data.train.ids), len(data.replay.train.ids))
    for line in proportions(*sizes, graphs=0 if recipe.batch.edges else recipe.batch.graphs):
        say(line)
    empty = replay.validation.nothing
    validation = make(data.validation, replayed=(empty, replay.convention))
    kept = make(data.train.nothing, replayed=(replay.validation, replay.convention))
    return {
        "train": make(
            data.train, times=1 + repeats(*sizes), row_count=rows, replayed=(replay.train, replay.convention)
        ),
        "validation": validation,
        "replay": Replayed(validation=kept, convention=replay.convention, method=replay.method),
    }


def _part(
    found: FoundPart,
    *,
    convention: Convention,
    recipe: Recipe,
    row_count: int = 0,
    times: int = 1,
    replayed: tuple[FoundPart, Convention] | None = None,
) -> Part:
    """A part whose structures come so many times, followed by what is replayed."""
    ids, sizes = [found.ids] * times, [found.survey.sizes] * times
    replay = None
    if replayed is not None:
        other, its_own = replayed
        replay = Replay(source=other.source, convention=its_own, start=times * len(found.ids))
        ids, sizes = [*ids, other.ids], [*sizes, other.survey.sizes]
    feed = Feed(
        source=found.source,
        ids=np.concatenate(ids),
        convention=convention,
        replay=replay,
        row_count=row_count,
        seed=recipe.seed,
        threads=recipe.data.threads,
    )
    return Part(feed=feed, sizes=joined(sizes))


def _shapes(parts: list[FoundPart], *, recipe: Recipe, devices: int, say: Say) -> tuple[GraphShape, ...]:
    """Shapes for all parts, so that validation compiles no more of them; a step's graphs are shared by devices."""
    sizes = joined([part.survey.sizes for part in parts])
    graphs, edges = _share(recipe, devices)
    if not edges and graphs * devices != recipe.batch.graphs:
        say(
            f"a step has {graphs * devices} structures on average, {graphs} for each of {devices} devices, and not the "
            f"{recipe.batch.graphs} of batch.graphs, which is no multiple of the devices"
        )
    shapes = choose_shapes(sizes, graphs=graphs, edges=edges)
    if text := oversized_text(sizes, np.concatenate([part.ids for part in parts]), shapes=shapes):
        say(text)
    return shapes


def _share(recipe: Recipe, devices: int) -> tuple[int, int]:
    """What of batch.graphs and batch.edges one device has; edges stay 0 where the recipe gives none."""
    graphs, edges = recipe.batch.graphs // devices, recipe.batch.edges // devices
    return max(1, graphs), max(1, edges) if recipe.batch.edges else 0


def _batch(recipe: Recipe, devices: int) -> dict[str, int]:
    """What a step really has over all devices, on average."""
    graphs, edges = _share(recipe, devices)
    return {"devices": devices} | ({"edges": edges * devices} if edges else {"graphs": graphs * devices})


def _check_labels(found: Survey, *, recipe: Recipe) -> None:
    if not len(found):
        raise TrainError("the subset's train part is empty; freeze a larger subset or other fractions")
    if recipe.finetune.foundation and found.forces_missing < len(found):
        return  # the foundation's energies are better than none
    if not found.has_energy.any():
        kinds = ", ".join(kind for kind in ENERGY_KINDS if kind != recipe.data.energy)
        raise TrainError(
            f"no structure to train on has {recipe.data.energy}; choose another with --set data.energy=… ({kinds})"
        )


def _unseen(train: Survey, elements: Iterable[int], *, say: Say) -> list[str]:
    """Symbols of the subset's elements that no structure to train on has.

    They are said: without that, an error of electronvolts in a held-out part looks like a bad model.
    """
    unseen = [SYMBOLS[number] for number in sorted(elements) if number not in train.elements]
    if unseen:
        say(
            f"WARNING: {', '.join(unseen)} are in the subset but in no structure to train on; energies of held-out "
            "structures with them cannot be right. Widen the subset or its train part"
        )
    return unseen


def _convention(facts: DataFacts, alignment: Alignment | None, *, recipe: Recipe) -> Convention:
    offsets, way = None, recipe.distillation.alignment
    if alignment is not None and way != "none":
        offsets = {number: alignment.offsets.get(number, 0.0) for number in facts.atomic_numbers}
    return Convention(energy=recipe.data.energy, e0=_e0(facts), offsets=offsets, to_labels=way == "structure")


def _e0(facts: DataFacts) -> dict[int, float]:
    return dict(zip(facts.atomic_numbers, facts.e0, strict=True))


def _report(data: _Data, *, facts: DataFacts, unseen: list[str], alignment: Alignment | None) -> dict[str, Any]:
    train = data.train.survey
    report: dict[str, Any] = {
        "structures": {"train": len(train), "validation": len(data.validation.survey)},
        "without_label": {
            "energy": int((~train.has_energy).sum()),
            "forces": train.forces_missing,
            "stress": train.stress_missing,
        },
        "elements_not_in_train": unseen,
        "scale": facts.scale,
        "shift": facts.shift,
        "avg_n_neighbors": facts.avg_n_neighbors,
    }
    if alignment is not None:
        report["alignment"] = alignment.describe()
        report["without_label"]["atomic_energies"] = int((~train.has_atomic_energies).sum())
    if data.replay is not None:
        sizes = {"train": len(data.replay.train.survey), "validation": len(data.replay.validation.survey)}
        times = 1 + repeats(len(train), sizes["train"])
        report["replay"] = {"structures": sizes, "method": data.replay.method, "target_times": times}
        report["replay"] |= {} if data.replay.fit is None else {"fit": data.replay.fit.describe()}
    return report
