"""Errors of energies, forces and stress as sums that add up over batches and devices."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mlipdb.trainers.graph import REPLAY, TARGET, Batch, Prediction
from mlipdb.trainers.heads_of_batch import REPLAYED, of_head
from mlipdb.trainers.losses.base import count, difference, on_atoms

QUANTITIES = ("energy", "forces", "stress")
UNITS = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³"}
MILLI = 1e3
Sums = tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]


def error_sums(prediction: Prediction, batch: Batch) -> dict[str, Sums]:
    """Σ|error|, Σ error² and the count: energy per atom (eV), force components (eV/Å), stress components (eV/Å³).

    Where graphs say of which head they are, those of the replay's are apart, under names of their own.
    """
    if batch.graph.head is None:
        return _sums_of_errors(prediction, batch)
    replayed = _sums_of_errors(prediction, of_head(batch, REPLAY))
    own = _sums_of_errors(prediction, of_head(batch, TARGET))
    return own | {REPLAYED + name: sums for name, sums in replayed.items()}


def _sums_of_errors(prediction: Prediction, batch: Batch) -> dict[str, Sums]:
    graph, targets = batch.graph, batch.targets
    has_energy = targets.has_energy & graph.graph_mask
    atoms = jnp.where(has_energy, graph.atom_count, 1).astype(jnp.float32)
    has_forces = jnp.broadcast_to(on_atoms(batch, targets.has_forces)[:, None], prediction.forces.shape)
    has_stress = targets.has_stress & graph.graph_mask & graph.periodic & prediction.has_stress
    has_components = jnp.broadcast_to(has_stress[:, None, None], prediction.stress.shape)
    return {
        "energy": _sums(difference(prediction.energy, targets.energy, has_energy) / atoms, has_energy),
        "forces": _sums(difference(prediction.forces, targets.forces, has_forces), has_forces),
        "stress": _sums(difference(prediction.stress, targets.stress, has_components), has_components),
    }


def _sums(errors: Float[Array, "*shape"], mask: Bool[Array, "*shape"]) -> Sums:
    return jnp.sum(jnp.abs(errors)), jnp.sum(jnp.square(errors)), count(mask)


def add_up(totals: dict[str, list[float]], found: Mapping[str, Sequence[Any]]) -> None:
    """Add one batch's numbers to the totals of the same name, on the host and in float64."""
    for name, values in found.items():
        sums = totals.setdefault(name, [0.0] * len(values))
        for place, value in enumerate(values):
            sums[place] += float(value)


def summary(totals: Mapping[str, list[float]]) -> dict[str, float | None]:
    """MAE and RMSE in meV/atom, meV/Å and meV/Å³ of the totals of error_sums; None where nothing is labelled."""
    found: dict[str, float | None] = {}
    for quantity in QUANTITIES:
        absolute, squares, number = totals.get(quantity, [0.0, 0.0, 0.0])
        found[f"{quantity}_mae"] = MILLI * absolute / number if number else None
        found[f"{quantity}_rmse"] = MILLI * (squares / number) ** 0.5 if number else None
    return found


def weighted_loss(terms: Mapping[str, list[float]], weights: Mapping[str, float]) -> float:
    """Σ weight · sum / count of the totals of loss terms."""
    return sum((weights[name] * total / max(number, 1.0) for name, (total, number) in terms.items()), start=0.0)
