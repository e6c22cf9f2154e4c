"""Consecutive frames of the same atoms: how the energy changed, and how much forces and stress say it should have."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from mlipdb.ingest.checks.columns import Columns

PAIRS = 256  # of one batch of frames, at most
ATOMS_PER_FRAME = 12  # atoms of pairs per frame of the batch, at most, so that the cost stays small
FAR = 0.3  # Å, and strain: frames further apart are no finite difference


@dataclass(frozen=True, eq=False)
class FramePairs:
    """Frame second[k] and the one before it, which hold the same atoms in the same order, a little moved.

    energy is the difference of the energies in eV; force_work what minus force times displacement gives for it by the
    trapezoid rule, stress_work what volume times stress times strain gives; pressure_volume the difference of pV.
    All in eV, all per atom. moved is the largest displacement in Å.
    """

    second: Int64[np.ndarray, " pairs"]
    natoms: Int64[np.ndarray, " pairs"]
    energy: Float64[np.ndarray, " pairs"]
    force_work: Float64[np.ndarray, " pairs"]
    stress_work: Float64[np.ndarray, " pairs"]
    pressure_volume: Float64[np.ndarray, " pairs"]

    def __len__(self) -> int:
        return len(self.second)


def frame_pairs(data: Columns) -> FramePairs:
    """Some pairs of consecutive frames with energies and forces, and a stress where they are periodic."""
    second = _candidates(data)
    first = second - 1
    natoms = data.natoms[second]
    cells = (data.cells[first] + data.cells[second]) / 2
    strains = np.zeros((len(second), 3, 3))
    periodic = data.periodic[second]
    strains[periodic] = np.linalg.solve(cells[periodic], (data.cells[second] - data.cells[first])[periodic])
    one, other = _rows(data, first), _rows(data, second)
    moves = _moves(data, one, other, first=first, cells=cells)
    force_work = _sums(-(data.forces[one] + data.forces[other]) * moves / 2, natoms)
    virials = np.where(data.periodic[:, None, None], data.stresses, 0.0) * np.nan_to_num(data.volume)[:, None, None]
    stress_work = ((virials[first] + virials[second]) / 2 * strains).sum(axis=(1, 2))
    change = np.trace(virials[first] - virials[second], axis1=1, axis2=2) / 3
    values = np.array([data.energy[second] - data.energy[first], force_work, stress_work, change]) / natoms
    near = (_largest(np.abs(moves).max(axis=1, initial=0.0), natoms) < FAR) & (np.abs(strains).max(axis=(1, 2)) < FAR)
    near &= np.isfinite(values).all(axis=0)
    return FramePairs(second[near], natoms[near], *values[:, near])


def _candidates(data: Columns) -> Int64[np.ndarray, " pairs"]:
    """Second frames of pairs that hold the same atoms and repeat alike, as many as the limits allow, spread out."""
    if len(data) < 2:
        return np.zeros(0, np.int64)
    alike = data.natoms[1:] == data.natoms[:-1]
    alike &= (data.periodic[1:] & data.periodic[:-1]) | (data.aperiodic[1:] & data.aperiodic[:-1])
    alike &= np.isfinite(data.energy[1:]) & np.isfinite(data.energy[:-1])
    second = np.flatnonzero(alike) + 1
    if len(second) > PAIRS:
        second = second[np.linspace(0, len(second) - 1, PAIRS).astype(np.int64)]
    second = second[np.cumsum(data.natoms[second]) <= max(ATOMS_PER_FRAME * len(data), 4096)]
    same = data.numbers[_rows(data, second - 1)] == data.numbers[_rows(data, second)]
    return second[_sums(~same, data.natoms[second]) == 0] if len(second) else second


def _rows(data: Columns, frames: Int64[np.ndarray, " pairs"]) -> Int64[np.ndarray, " rows"]:
    """Rows of the atoms of some frames, frame by frame."""
    natoms = data.natoms[frames]
    within = np.arange(natoms.sum()) - np.repeat(np.cumsum(natoms) - natoms, natoms)
    return np.asarray(np.repeat(data.starts[frames], natoms) + within)


def _moves(
    data: Columns,
    one: Int64[np.ndarray, " rows"],
    other: Int64[np.ndarray, " rows"],
    *,
    first: Int64[np.ndarray, " pairs"],
    cells: Float64[np.ndarray, "pairs 3 3"],
) -> Float64[np.ndarray, "rows 3"]:
    """Displacement of each atom in Å beyond what the change of the cell gives, by the shortest way round."""
    moves = data.positions[other] - data.positions[one]
    periodic = np.repeat(data.periodic[first], data.natoms[first])
    if periodic.any():
        pair = np.repeat(np.arange(len(first)), data.natoms[first])[periodic]
        inverse = np.zeros_like(data.cells)
        inverse[data.periodic] = np.linalg.inv(data.cells[data.periodic])
        before = np.einsum("ai,aij->aj", data.positions[one[periodic]], inverse[first][pair])
        after = np.einsum("ai,aij->aj", data.positions[other[periodic]], inverse[first + 1][pair])
        shift = after - before
        moves[periodic] = np.einsum("ai,aij->aj", shift - np.round(shift), cells[pair])
    return np.asarray(moves)


def _sums(values: np.ndarray, natoms: Int64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " pairs"]:
    flat = values.sum(axis=tuple(range(1, values.ndim)), dtype=np.float64)
    return np.add.reduceat(flat, np.cumsum(natoms) - natoms) if len(natoms) else np.zeros(0)


def _largest(values: np.ndarray, natoms: Int64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " pairs"]:
    return np.maximum.reduceat(values, np.cumsum(natoms) - natoms) if len(natoms) else np.zeros(0)
