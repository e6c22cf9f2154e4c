"""How far a model is from labels, energies also after an offset per element, since conventions may differ."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float64

from mlipdb.labels import Label
from mlipdb.structures import Structure
from mlipdb.trainers.alignment import align
from mlipdb.trainers.forgetting.answers import Answer, answers
from mlipdb.trainers.metrics import MILLI
from mlipdb.trainers.models.base import AbstractModel, reference_energies

Labelled = tuple[Structure, Label]


@dataclass(frozen=True, kw_only=True)
class Errors:
    """MAEs: energies in meV/atom, force components in meV/Å, stress components in meV/Å³; None where none is labelled.

    energy_aligned_mae is that after an offset per element, fitted on these structures: where the labels are of another
    level of theory than the model learnt, it is the one that says something.
    """

    structures: int
    energy_mae: float | None
    energy_aligned_mae: float | None
    forces_mae: float | None
    stress_mae: float | None

    def row(self) -> dict[str, float | int | None]:
        """Plain values."""
        return asdict(self)


def label_errors(model: AbstractModel, labelled: Sequence[Labelled], *, energy: str) -> Errors:
    """Errors on structures with labels; energy names the labelled energy that counts. Raises ElementError."""
    found = answers(model, [structure for structure, _ in labelled])
    differences, compositions = [], []
    for (structure, label), answer in zip(labelled, found, strict=True):
        wanted = getattr(label, energy)
        if wanted is not None:
            total = answer.energy + float(reference_energies(model, structure).sum())
            differences.append(wanted - total)
            compositions.append(structure.composition)
    raw, aligned = _energy_errors(np.array(differences, dtype=np.float64), compositions)
    return Errors(
        structures=len(labelled),
        energy_mae=raw,
        energy_aligned_mae=aligned,
        forces_mae=_mean([a.forces - lb.forces for a, lb in _both(found, labelled) if lb.forces is not None]),
        stress_mae=_mean(
            [a.stress - lb.stress for a, lb in _both(found, labelled) if not (a.stress is None or lb.stress is None)]
        ),
    )


def _both(found: Sequence[Answer], labelled: Sequence[Labelled]) -> list[tuple[Answer, Label]]:
    return [(answer, label) for answer, (_, label) in zip(found, labelled, strict=True)]


def _energy_errors(
    differences: Float64[np.ndarray, " labelled"], compositions: Sequence[Mapping[int, int]]
) -> tuple[float | None, float | None]:
    """MAE in meV/atom as it is, and after the offsets."""
    if not len(differences):
        return None, None
    atoms = np.array([sum(each.values()) for each in compositions], dtype=np.float64)
    offsets = align(differences, compositions).offsets
    shifts = np.array([sum(offsets[z] * n for z, n in each.items()) for each in compositions], dtype=np.float64)
    return (
        MILLI * float(np.abs(differences / atoms).mean()),
        MILLI * float(np.abs((differences - shifts) / atoms).mean()),
    )


def _mean(parts: Sequence[Float64[np.ndarray, "..."]]) -> float | None:
    """Mean over all components in thousandths."""
    return MILLI * float(np.abs(np.concatenate([part.ravel() for part in parts])).mean()) if parts else None
