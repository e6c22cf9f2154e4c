"""Whether a model's forces keep the energy: a short run of molecular dynamics at constant energy."""

from dataclasses import dataclass
from typing import Any

import ase
import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet
from jaxtyping import Float64

from mlipdb.structures import Structure
from mlipdb.trainers.calculator import Calculator
from mlipdb.trainers.forgetting.answers import without_e0
from mlipdb.trainers.models.base import AbstractModel

TEMPERATURE = 300.0  # K
STEP = 1.0  # fs
HOTTEST = 20.0  # times the temperature at the start; beyond, the structure has exploded


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Slope of the total energy in meV/atom/ps (least squares), its largest excursion in meV/atom, steps that ran.

    exploded says that the run was stopped, since the temperature was absurd or a number not finite; drift is None then.
    """

    steps: int
    drift: float | None
    excursion: float | None
    exploded: bool


def energy_drift(model: AbstractModel, structure: Structure, *, steps: int = 200, seed: int = 0) -> Drift:
    """Velocity Verlet of 1 fs from 300 K (which the structure's own potential energy shares), drawn by the seed."""
    atoms: Any = ase.Atoms(  # its methods have no types
        numbers=structure.atomic_numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc
    )
    atoms.calc = Calculator(without_e0(model))
    atoms.set_momenta(_momenta(atoms.get_masses(), seed=seed))
    energies = _run(atoms, steps=steps)
    if len(energies) <= steps:
        return Drift(steps=len(energies) - 1, drift=None, excursion=None, exploded=True)
    per_atom = 1e3 * (energies - energies[0]) / len(structure)
    slope = float(np.polyfit(np.arange(steps + 1) * STEP * 1e-3, per_atom, 1)[0])
    return Drift(steps=steps, drift=slope, excursion=float(np.abs(per_atom).max()), exploded=False)


def _momenta(masses: Float64[np.ndarray, " atoms"], *, seed: int) -> Float64[np.ndarray, "atoms 3"]:
    """Momenta of TEMPERATURE in ASE's units, less what the structure would move with as a whole."""
    widths = np.sqrt(masses * units.kB * TEMPERATURE)[:, None]
    drawn = widths * np.random.default_rng(seed).normal(size=(len(masses), 3))
    momenta: Float64[np.ndarray, "atoms 3"] = drawn - masses[:, None] * (drawn.sum(axis=0) / masses.sum())
    return momenta


def _run(atoms: Any, *, steps: int) -> Float64[np.ndarray, " _"]:
    """Total energies in eV of the start and of each step, up to one before the structure explodes."""
    dynamics: Any = VelocityVerlet(atoms, timestep=STEP * units.fs)
    energies = [float(atoms.get_total_energy())]
    limit = HOTTEST * max(float(atoms.get_temperature()), TEMPERATURE)
    for _ in range(steps):
        dynamics.run(1)
        energy, temperature = float(atoms.get_total_energy()), float(atoms.get_temperature())
        if not (np.isfinite(energy) and temperature < limit):
            break
        energies.append(energy)
    return np.array(energies, dtype=np.float64)
