"""Frames of one composition beside each other: pairs that are nearly the same crystal at another volume."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mlipdb.ingest.checks.samples import GroupSample, Rows
from mlipdb.ingest.checks.summaries import FrameSummaries

CAPACITY = 60_000  # frames that are held
NEIGHBOURS = 6  # frames next in volume that each one is compared with
ALIKE = 0.015  # relative difference of cell shapes that counts as none
QUIET = 0.1  # eV/Å rms; below it forces do not decide how the energy changes


@dataclass(frozen=True, eq=False)
class VolumePairs:
    """Pairs of frames (places in the sample) of equal composition and size, the first with the smaller volume.

    energy is the difference per atom in eV; work what minus pressure times the difference of volume gives, by the
    trapezoid rule; pressure_volume the difference of pV per atom; swelling the relative difference of volume.
    """

    first: Int64[np.ndarray, " pairs"]
    second: Int64[np.ndarray, " pairs"]
    same_material: Bool[np.ndarray, " pairs"]
    energy: Float64[np.ndarray, " pairs"]
    work: Float64[np.ndarray, " pairs"]
    pressure_volume: Float64[np.ndarray, " pairs"]
    swelling: Float64[np.ndarray, " pairs"]

    def __len__(self) -> int:
        return len(self.first)

    def where(self, chosen: Bool[np.ndarray, " pairs"]) -> "VolumePairs":
        """Some of the pairs."""
        return VolumePairs(**{name: values[chosen] for name, values in vars(self).items()})


class VolumeSample:
    """Frames of some compositions, with energy and volume, kept to be compared with each other."""

    def __init__(self) -> None:
        self._sample = GroupSample(CAPACITY)

    def add(self, summaries: FrameSummaries) -> None:
        """Take the periodic frames with energies."""
        s = summaries
        chosen = s.periodic & np.isfinite(s.energy)
        rows: dict[str, Any] = {
            "energy": s.energy / s.natoms,
            "volume": s.volume / s.natoms,
            "pressure": -s.stress_mean,
            "force": np.sqrt(s.force_squares / s.natoms),
            "material": s.materials,
            "method": s.methods,
            "shape": s.shapes,
            "key": np.array(s.keys, dtype=object),
        }
        groups = _composition_numbers(s)
        self._sample.add(groups[chosen], {name: values[chosen] for name, values in rows.items()})

    def rows(self) -> Rows:
        """The frames of the sample by group and volume."""
        rows = self._sample.rows()
        if not rows:
            return rows
        order = np.lexsort((rows["volume"], rows["method"], rows["group"]))
        return {name: values[order] for name, values in rows.items()}


def volume_pairs(rows: Rows) -> VolumePairs:
    """Pairs of frames next to each other in volume with the same composition, method, and material or cell shape."""
    length = len(rows["group"]) if rows else 0
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in range(1, min(NEIGHBOURS, length - 1) + 1):
        first = np.arange(length - step)
        second = first + step
        same = (rows["group"][first] == rows["group"][second]) & (rows["method"][first] == rows["method"][second])
        alike = np.abs(rows["shape"][first] - rows["shape"][second]).max(axis=1) < ALIKE
        same &= alike | (rows["material"][first] == rows["material"][second])
        firsts.append(first[same])
        seconds.append(second[same])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    if not len(first):
        return VolumePairs(first, second, np.zeros(0, bool), *(np.zeros(0) for _ in range(4)))
    energy, volume, pressure = rows["energy"], rows["volume"], rows["pressure"]
    difference = volume[second] - volume[first]
    return VolumePairs(
        first=first,
        second=second,
        same_material=rows["material"][first] == rows["material"][second],
        energy=energy[second] - energy[first],
        work=-(pressure[first] + pressure[second]) / 2 * difference,
        pressure_volume=pressure[second] * volume[second] - pressure[first] * volume[first],
        swelling=difference / volume[first],
    )


def quiet(rows: Rows, pairs: VolumePairs) -> Bool[np.ndarray, " pairs"]:
    """Pairs whose frames have small forces, or none given, so that volume alone changes the energy."""
    force = np.nan_to_num(rows["force"]) if rows else np.zeros(0)
    return np.asarray(np.maximum(force[pairs.first], force[pairs.second]) < QUIET)


def _composition_numbers(s: FrameSummaries) -> Int64[np.ndarray, " frames"]:
    """A number for each composition and size: a sum of fixed pseudo-random numbers, one an atom."""
    weights = np.random.default_rng(1).integers(1, 1 << 31, 120)
    values = np.zeros(len(s), dtype=np.int64)
    np.add.at(values, s.atom_frames, weights[s.atom_numbers] * s.atom_counts)
    return values
