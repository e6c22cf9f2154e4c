"""How far a model is from the labels of a list of structures: totals of forces and stress, energies one by one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int64

from mlipdb.labels import Label
from mlipdb.subsets.statistics import E0Fit
from mlipdb.trainers.batching.feed import Feed
from mlipdb.trainers.batching.packing import PlannedBatch, choose_shapes, plan_in_order
from mlipdb.trainers.batching.records import Record, RecordSource
from mlipdb.trainers.batching.shapes import KnownShapes
from mlipdb.trainers.batching.targets import Convention
from mlipdb.trainers.compiled import compiled
from mlipdb.trainers.graph import Batch, Prediction
from mlipdb.trainers.metrics import MILLI, Sums, add_up, error_sums, summary
from mlipdb.trainers.models.base import AbstractModel, require_elements
from mlipdb.trainers.models.derive import predict
from mlipdb.trainers.survey import Survey, survey

EDGES = 20_000  # of a batch: some hundred MB with the largest published models


@dataclass(frozen=True, eq=False, kw_only=True)
class PartErrors:
    """Errors on a list of structures.

    energies are predicted minus labelled totals in eV of the structures that have a label, compositions theirs; totals
    are those of error_sums for forces and stress.
    """

    structures: int
    energies: Float64[np.ndarray, " labelled"]
    compositions: tuple[Mapping[int, int], ...]
    totals: Mapping[str, list[float]] = field(default_factory=dict)

    def row(self, *, offsets: Mapping[int, float] | None = None) -> dict[str, float | int | None]:
        """MAE and RMSE in meV/atom, meV/Å and meV/Å³; offsets (eV per atom of an element) are added to predictions."""
        atoms = np.array([sum(each.values()) for each in self.compositions], dtype=np.float64)
        shifts = [sum((offsets or {}).get(z, 0.0) * n for z, n in each.items()) for each in self.compositions]
        errors = np.abs(self.energies + np.array(shifts, dtype=np.float64)) / atoms
        found = summary(self.totals)
        found["energy_mae"] = MILLI * float(errors.mean()) if len(errors) else None
        found["energy_rmse"] = MILLI * float(np.sqrt(np.mean(errors**2))) if len(errors) else None
        return {"structures": self.structures, **found}


def model_errors(
    model: AbstractModel,
    source: RecordSource,
    ids: Int64[np.ndarray, " structures"],
    *,
    energy: str,
    known: KnownShapes | None = None,
) -> PartErrors:
    """Errors of a model; known are the shapes of other parts, for which there are programs.

    Raises ElementError when a structure has an element that the model does not know.
    """
    found = survey(_known(source, ids, model=model), energy=energy)
    e0 = dict(zip(model.atomic_numbers, model.e0.tolist(), strict=True))
    feed = Feed(source=source, ids=ids, convention=Convention(energy=energy, e0=e0))
    plan = _plan(found, KnownShapes() if known is None else known)
    predicted = np.zeros(len(ids))
    totals: dict[str, list[float]] = {}
    for planned, fed in zip(plan, feed.batches(plan), strict=True):
        energies, sums = _errors(model, jax.tree.map(jnp.asarray, fed.batch))
        predicted[planned.members] = np.asarray(energies, np.float64)[: len(planned.members)]
        add_up(totals, sums)
    reference = [sum(e0[z] * n for z, n in each.items()) for each in found.compositions]
    return _part_errors(found, predicted + np.array(reference, dtype=np.float64), totals=totals)


def _plan(found: Survey, known: KnownShapes) -> list[PlannedBatch]:
    plan = plan_in_order(found.sizes, choose_shapes(found.sizes, graphs=64, edges=EDGES))
    return [replace(planned, shape=known.fitting(planned.shape)) for planned in plan]


def baseline_errors(
    fit: E0Fit, source: RecordSource, ids: Int64[np.ndarray, " structures"], *, energy: str
) -> PartErrors:
    """Errors of E0 alone: energies are sums of E0 (0 for elements without one), forces and stress are 0."""
    known = dict(zip(fit.atomic_numbers.tolist(), fit.e0.tolist(), strict=True))
    errors: list[float] = []
    compositions: list[Mapping[int, int]] = []
    totals: dict[str, list[float]] = {}
    for structure, label in source.labels(ids):
        add_up(totals, _zero_sums(label))
        labelled = None if label is None else getattr(label, energy)
        if labelled is not None:
            compositions.append(composition := structure.composition)
            errors.append(sum(known.get(z, 0.0) * n for z, n in composition.items()) - labelled)
    energies = np.array(errors, dtype=np.float64)
    return PartErrors(structures=len(ids), energies=energies, compositions=tuple(compositions), totals=totals)


def _known(source: RecordSource, ids: Int64[np.ndarray, " structures"], *, model: AbstractModel) -> Iterator[Record]:
    """The records, one after another: no more of them are held than the source keeps."""
    for record in source.stream(ids):
        require_elements(model, [record.structure])
        yield record


def _part_errors(
    found: Survey, predicted: Float64[np.ndarray, " structures"], *, totals: Mapping[str, list[float]]
) -> PartErrors:
    labelled = np.flatnonzero(found.has_energy)
    return PartErrors(
        structures=len(found),
        energies=(predicted - found.energies)[labelled],
        compositions=tuple(found.compositions[place] for place in labelled),
        totals={quantity: totals[quantity] for quantity in ("forces", "stress") if quantity in totals},
    )


@compiled
def _errors(model: AbstractModel, batch: Batch) -> tuple[Float[Array, " graphs"], dict[str, Sums]]:
    prediction: Prediction = predict(model, batch.graph)
    return prediction.energy, error_sums(prediction, batch)


def _zero_sums(label: Label | None) -> dict[str, tuple[float, float, int]]:
    """Sums of |label|, label² and the count, of one structure's forces and stress."""
    arrays = {} if label is None else {"forces": label.forces, "stress": label.stress}
    return {
        name: (float(np.abs(array).sum()), float(np.square(array).sum()), array.size)
        for name, array in arrays.items()
        if array is not None
    }
