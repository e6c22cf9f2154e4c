"""Everything that is measured of one model: errors on two sets, curves at short range, drift."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlipdb.structures import Structure
from mlipdb.trainers.forgetting.cells import cell_curves
from mlipdb.trainers.forgetting.curve import Curve, Faults
from mlipdb.trainers.forgetting.dimers import dimer_curves
from mlipdb.trainers.forgetting.drift import Drift, energy_drift
from mlipdb.trainers.forgetting.errors import Errors, Labelled, label_errors
from mlipdb.trainers.models.base import AbstractModel


@dataclass(frozen=True, eq=False, kw_only=True)
class Probes:
    """What models are asked for: labelled structures of the target and of the foundation, with their energies' names.

    target_e0 and foundation_e0 are the E0s in eV, by atomic number, of the models that those labels belong to. elements
    are those whose pairs are dimers; cells are pressed together; moving is where the dynamics starts, for
    steps of 1 fs, None for no dynamics.
    """

    target: Sequence[Labelled]
    target_energy: str
    target_e0: Mapping[int, float]
    foundation: Sequence[Labelled]
    foundation_energy: str
    foundation_e0: Mapping[int, float]
    elements: tuple[int, ...]
    cells: tuple[Structure, ...]
    moving: Structure | None
    steps: int = 200
    seed: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Measured:
    """What was found of a model."""

    target: Errors
    foundation: Errors
    dimers: tuple[Curve, ...]
    cells: tuple[Curve, ...]
    drift: Drift | None

    def numbers(self) -> dict[str, Any]:
        """Plain numbers: MAEs, counts of faults, drift."""
        return {
            "target": self.target.row(),
            "foundation": self.foundation.row(),
            "dimers": asdict(Faults.of(self.dimers)),
            "cells": asdict(Faults.of(self.cells)),
            "drift": None if self.drift is None else asdict(self.drift),
        }


def measure(model: AbstractModel, probes: Probes) -> Measured:
    """Ask a model for everything. Raises ElementError where it does not know an element of the probes."""
    return Measured(
        target=label_errors(model, probes.target, energy=probes.target_energy, e0=probes.target_e0),
        foundation=known_errors(model, probes),
        dimers=tuple(dimer_curves(model, probes.elements)),
        cells=tuple(cell_curves(model, probes.cells)) if probes.cells else (),
        drift=(
            None if probes.moving is None else energy_drift(model, probes.moving, steps=probes.steps, seed=probes.seed)
        ),
    )


def known_errors(model: AbstractModel, probes: Probes) -> Errors:
    """Errors on the foundation's structures alone."""
    return label_errors(model, probes.foundation, energy=probes.foundation_energy, e0=probes.foundation_e0)
