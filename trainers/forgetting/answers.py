"""A model's answers for structures that need not be stored: one shape for all that fit, so that little is compiled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float64

from mlipdb.structures import Structure
from mlipdb.trainers.batching.neighbours import Neighbours, neighbours
from mlipdb.trainers.batching.pad import GraphShape, needed_shape, pad_graph, reuse_shape
from mlipdb.trainers.compiled import compiled
from mlipdb.trainers.graph import Prediction
from mlipdb.trainers.models.base import AbstractModel, AbstractTrunked, require_elements
from mlipdb.trainers.models.derive import predict

USUAL = GraphShape(atoms=1025, edges=8192, graphs=513)

_predict = compiled(predict)

Listed = tuple[Structure, Neighbours]


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """Interaction energy in eV (without E0), forces in eV/Å and stress in eV/Å³, None where the model has none."""

    energy: float
    forces: Float64[np.ndarray, "atoms 3"]
    stress: Float64[np.ndarray, "3 3"] | None


def answers(model: AbstractModel, structures: Sequence[Structure]) -> list[Answer]:
    """One answer per structure, in order. Raises ElementError for an element that the model does not know."""
    require_elements(model, structures)
    bare, shape = without_e0(model), None
    found: list[Answer] = []
    for batch in _batches(model, structures):
        members, lists = [structure for structure, _ in batch], [each for _, each in batch]
        needed = needed_shape(members, lists)
        shape = USUAL if USUAL.holds(needed) else reuse_shape(needed, None if shape is USUAL else shape)
        found += _split(jax.device_get(_predict(bare, pad_graph(members, lists, shape=shape))), members)
    return found


def without_e0(model: AbstractModel) -> AbstractModel:
    """The model with E0 0, so that models which differ in E0 alone share what was compiled."""
    if not isinstance(model, AbstractTrunked):
        return model
    bare: AbstractModel = model.with_reference(e0=dict.fromkeys(model.atomic_numbers, 0.0))
    return bare


def _batches(model: AbstractModel, structures: Sequence[Structure]) -> Iterator[list[Listed]]:
    """Consecutive structures that fit the usual shape together; one that does not fit is alone."""
    batch: list[Listed] = []
    room = np.array(USUAL.capacity[:3])
    for structure in structures:
        pairs = neighbours(structure, model.cutoff, needs=model.graph_needs)
        taken = np.array([len(pairs), len(structure), 1])
        if batch and (taken > room).any():
            yield batch
            batch, room = [], np.array(USUAL.capacity[:3])
        batch, room = [*batch, (structure, pairs)], room - taken
    if batch:
        yield batch


def _split(prediction: Prediction, structures: Sequence[Structure]) -> list[Answer]:
    ends = np.cumsum([len(structure) for structure in structures])
    forces = np.split(np.asarray(prediction.forces[: ends[-1]], dtype=np.float64), ends[:-1])
    return [
        Answer(
            energy=float(prediction.energy[place]),
            forces=each,
            stress=np.asarray(prediction.stress[place], np.float64) if _has_stress(prediction, structure) else None,
        )
        for place, (structure, each) in enumerate(zip(structures, forces, strict=True))
    ]


def _has_stress(prediction: Prediction, structure: Structure) -> bool:
    return prediction.has_stress and all(structure.pbc)
