"""What a model predicts for structures one by one, beside their labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int64

from mlipdb.trainers.batching.feed import Feed
from mlipdb.trainers.batching.packing import choose_shapes, plan_in_order
from mlipdb.trainers.batching.records import Record, RecordSource
from mlipdb.trainers.batching.targets import Convention
from mlipdb.trainers.compiled import compiled
from mlipdb.trainers.models.base import AbstractModel, reference_energies, require_elements
from mlipdb.trainers.models.derive import predict
from mlipdb.trainers.part_errors import EDGES
from mlipdb.trainers.survey import survey

_predict = compiled(predict)


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """Labels and predictions, the last axis: label, prediction.

    Of each structure its id, its number of atoms, its composition, and where has_energy its total energy in eV. Of each
    atom whose structure has labelled forces those in eV/Å, its atomic number, and the place of its structure in ids.
    Of each structure with a labelled stress, where the model gives one, that in eV/Å³ and its place.
    """

    ids: Int64[np.ndarray, " structures"]
    atoms: Int64[np.ndarray, " structures"]
    compositions: tuple[Mapping[int, int], ...]
    energies: Float64[np.ndarray, "structures 2"]
    has_energy: Bool[np.ndarray, " structures"]
    forces: Float64[np.ndarray, "atoms 3 2"]
    force_elements: Int64[np.ndarray, " atoms"]
    force_places: Int64[np.ndarray, " atoms"]
    stresses: Float64[np.ndarray, "stressed 3 3 2"]
    stress_places: Int64[np.ndarray, " stressed"]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class _Predicted:
    """Of one structure: total energy eV, forces eV/Å, stress eV/Å³ where the model gives one and all repeats."""

    energy: float
    forces: Float64[np.ndarray, "atoms 3"]
    stress: Float64[np.ndarray, "3 3"] | None


def predict_structures(
    model: AbstractModel, source: RecordSource, ids: Int64[np.ndarray, " structures"], *, energy: str
) -> Predictions:
    """Predictions for structures of a database, beside the labels that source chooses; energy names the kind of energy.

    Raises ElementError when a structure has an element that the model does not know.
    """
    records = list(source.stream(ids))
    require_elements(model, (record.structure for record in records))
    predicted = _evaluate(model, source, ids, records=records, energy=energy)
    labelled = [None if record.label is None else getattr(record.label, energy) for record in records]
    energies = [(0.0 if label is None else label, one.energy) for label, one in zip(labelled, predicted, strict=True)]
    return Predictions(
        ids=ids,
        atoms=np.array([len(record.structure) for record in records], dtype=np.int64),
        compositions=tuple(record.structure.composition for record in records),
        energies=np.array(energies, dtype=np.float64).reshape(-1, 2),
        has_energy=np.array([label is not None for label in labelled], dtype=np.bool_),
        **_forces(records, predicted),
        **_stresses(records, predicted),
    )


def _evaluate(
    model: AbstractModel,
    source: RecordSource,
    ids: Int64[np.ndarray, " structures"],
    *,
    records: list[Record],
    energy: str,
) -> list[_Predicted]:
    """The model on all records, in padded batches of like sizes."""
    sizes = survey(records, energy=energy).sizes
    e0 = dict(zip(model.atomic_numbers, model.e0.tolist(), strict=True))
    feed = Feed(source=source, ids=ids, convention=Convention(energy=energy, e0=e0))
    plan = plan_in_order(sizes, choose_shapes(sizes, graphs=64, edges=EDGES))
    found: dict[int, _Predicted] = {}
    for planned, fed in zip(plan, feed.batches(plan), strict=True):
        prediction = jax.device_get(_predict(model, jax.tree.map(jnp.asarray, fed.batch.graph)))
        first = 0
        for graph, place in enumerate(planned.members.tolist()):
            structure = records[place].structure
            atoms = slice(first, first := first + len(structure))
            stressed = prediction.has_stress and all(structure.pbc)
            own = np.asarray(prediction.atomic_energies[atoms], dtype=np.float64)
            found[place] = _Predicted(
                float((own + reference_energies(model, structure)).sum()),
                np.asarray(prediction.forces[atoms], dtype=np.float64),
                np.asarray(prediction.stress[graph], dtype=np.float64) if stressed else None,
            )
    return [found[place] for place in range(len(records))]


def _forces(records: list[Record], predicted: list[_Predicted]) -> dict[str, Any]:
    pairs, elements, places = [np.zeros((0, 3, 2))], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for place, (record, one) in enumerate(zip(records, predicted, strict=True)):
        if record.label is not None and record.label.forces is not None:
            pairs.append(np.stack([record.label.forces, one.forces], axis=-1))
            elements.append(np.asarray(record.structure.atomic_numbers, dtype=np.int64))
            places.append(np.full(len(record.structure), place, dtype=np.int64))
    joined = (np.concatenate(arrays) for arrays in (pairs, elements, places))
    return dict(zip(("forces", "force_elements", "force_places"), joined, strict=True))


def _stresses(records: list[Record], predicted: list[_Predicted]) -> dict[str, Any]:
    pairs, places = [np.zeros((0, 3, 3, 2))], []
    for place, (record, one) in enumerate(zip(records, predicted, strict=True)):
        if record.label is not None and record.label.stress is not None and one.stress is not None:
            pairs.append(np.stack([record.label.stress, one.stress], axis=-1)[None])
            places.append(place)
    return {"stresses": np.concatenate(pairs), "stress_places": np.array(places, dtype=np.int64)}
