"""Frames side by side as a few long arrays, so that checks look at thousands of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mlipdb.ingest.reader import Frame
from mlipdb.labels import Label

ENERGIES = ("energy_uncorrected", "free_energy", "energy_zero", "energy_corrected")  # the first that a label has


@dataclass(frozen=True, eq=False, kw_only=True)
class Columns:
    """Arrays of consecutive frames; NaN where a label does not give a number.

    Atoms of frame k are rows starts[k] to starts[k] + natoms[k] of numbers, positions (Å) and forces (eV/Å). cells in
    Å, zero rows where there is none; stresses in eV/Å³, positive under tension; energy in eV.
    """

    natoms: Int64[np.ndarray, " frames"]
    starts: Int64[np.ndarray, " frames"]
    periodic: Bool[np.ndarray, " frames"]
    aperiodic: Bool[np.ndarray, " frames"]
    numbers: Int64[np.ndarray, " atoms"]
    positions: Float64[np.ndarray, "atoms 3"]
    cells: Float64[np.ndarray, "frames 3 3"]
    energy: Float64[np.ndarray, " frames"]
    forces: Float64[np.ndarray, "atoms 3"]
    stresses: Float64[np.ndarray, "frames 3 3"]
    volume: Float64[np.ndarray, " frames"]

    def __len__(self) -> int:
        return len(self.natoms)


def columns(frames: Sequence[Frame]) -> Columns:
    """The frames side by side."""
    structures = [frame.structure for frame in frames]
    labels = [frame.label for frame in frames]
    lengths = [len(structure.atomic_numbers) for structure in structures]
    natoms = np.array(lengths, dtype=np.int64)
    cells = np.array([structure.cell for structure in structures], dtype=np.float64).reshape(-1, 3, 3)
    directions = np.array([sum(structure.pbc) for structure in structures], dtype=np.int64)
    return Columns(
        natoms=natoms,
        starts=np.cumsum(natoms) - natoms,
        periodic=directions == 3,
        aperiodic=directions == 0,
        numbers=_joined([structure.atomic_numbers for structure in structures]).astype(np.int64),
        positions=_joined([structure.positions for structure in structures]).reshape(-1, 3),
        cells=cells,
        energy=np.array([_energy(label) for label in labels], dtype=np.float64),
        forces=_forces(labels, lengths),
        stresses=_stresses(labels),
        volume=np.where(directions == 3, np.abs(np.linalg.det(cells)), np.nan),
    )


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0)


def _energy(label: Label | None) -> float:
    if label is None:
        return np.nan
    if label.energy_uncorrected is not None:
        return label.energy_uncorrected
    return next((value for name in ENERGIES if (value := getattr(label, name)) is not None), np.nan)


def _forces(labels: Sequence[Label | None], lengths: Sequence[int]) -> Float64[np.ndarray, "atoms 3"]:
    given = [None if label is None else label.forces for label in labels]
    if any(forces is None for forces in given):
        pairs = zip(given, lengths, strict=True)
        given = [np.full((length, 3), np.nan) if forces is None else forces for forces, length in pairs]
    return _joined(given).reshape(-1, 3)  # type: ignore[arg-type]  # none is None here


def _stresses(labels: Sequence[Label | None]) -> Float64[np.ndarray, "frames 3 3"]:
    blank = np.full((3, 3), np.nan)
    given = [blank if label is None or label.stress is None else label.stress for label in labels]
    return np.array(given, dtype=np.float64).reshape(-1, 3, 3)
