"""How far a model is from labels, energies also in the labels' own convention, since conventions may differ."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float64

from mlipdb.labels import Label
from mlipdb.structures import Structure
from mlipdb.trainers.alignment import align
from mlipdb.trainers.forgetting.answers import Answer, answers
from mlipdb.trainers.metrics import MILLI
from mlipdb.trainers.models.base import AbstractModel

ENOUGH = 3  # structures for each offset

Labelled = tuple[Structure, Label]


@dataclass(frozen=True, kw_only=True)
class Errors:
    """MAEs: energies in meV/atom, force components in meV/Å, stress components in meV/Å³; None where none is labelled.

    energy_aligned_mae is with the E0s of that of the two models which the labels belong to: where they are of another
    level of theory than a model learnt, it is the one that says something, None where those E0s lack an element.
    energy_fitted_mae is after an offset per element fitted on these structures, None where these are fewer than
    ENOUGH for each offset, as a fit of many offsets to few structures leaves no error whatever the model is.
    """

    structures: int
    energy_mae: float | None
    energy_aligned_mae: float | None
    energy_fitted_mae: float | None
    forces_mae: float | None
    stress_mae: float | None

    def row(self) -> dict[str, float | int | None]:
        """Plain values."""
        return asdict(self)


def label_errors(model: AbstractModel, labelled: Sequence[Labelled], *, energy: str, e0: Mapping[int, float]) -> Errors:
    """Errors on structures with labels; energy names the labelled energy that counts. Raises ElementError.

    e0 in eV by atomic number are the E0s of the model that the labels belong to.
    """
    found = answers(model, [structure for structure, _ in labelled])
    own = dict(zip(model.atomic_numbers, model.e0.tolist(), strict=True))
    interaction, compositions = [], []
    for (structure, label), answer in zip(labelled, found, strict=True):
        wanted = getattr(label, energy)
        if wanted is not None:
            interaction.append(wanted - answer.energy)
            compositions.append(structure.composition)
    left = np.array(interaction, dtype=np.float64)
    return Errors(
        structures=len(labelled),
        energy_mae=_energy_mae(left, compositions, e0=own),
        energy_aligned_mae=_energy_mae(left, compositions, e0=e0),
        energy_fitted_mae=_fitted_mae(left, compositions),
        forces_mae=_mean([a.forces - lb.forces for a, lb in _both(found, labelled) if lb.forces is not None]),
        stress_mae=_mean(
            [a.stress - lb.stress for a, lb in _both(found, labelled) if not (a.stress is None or lb.stress is None)]
        ),
    )


def _both(found: Sequence[Answer], labelled: Sequence[Labelled]) -> list[tuple[Answer, Label]]:
    return [(answer, label) for answer, (_, label) in zip(found, labelled, strict=True)]


def _energy_mae(
    left: Float64[np.ndarray, " labelled"], compositions: Sequence[Mapping[int, int]], *, e0: Mapping[int, float]
) -> float | None:
    """MAE in meV/atom; left are labels less interaction energies in eV, which E0s should make up for."""
    if not len(left) or {number for each in compositions for number in each} - e0.keys():
        return None
    atoms = np.array([sum(each.values()) for each in compositions], dtype=np.float64)
    sums = np.array([sum(e0[z] * n for z, n in each.items()) for each in compositions], dtype=np.float64)
    return MILLI * float(np.abs((left - sums) / atoms).mean())


def _fitted_mae(left: Float64[np.ndarray, " labelled"], compositions: Sequence[Mapping[int, int]]) -> float | None:
    elements = {number for each in compositions for number in each}
    if len(left) < ENOUGH * len(elements) or not elements:
        return None
    return _energy_mae(left, compositions, e0=align(left, compositions).offsets)


def _mean(parts: Sequence[Float64[np.ndarray, "..."]]) -> float | None:
    """Mean over all components in thousandths."""
    return MILLI * float(np.abs(np.concatenate([part.ravel() for part in parts])).mean()) if parts else None
