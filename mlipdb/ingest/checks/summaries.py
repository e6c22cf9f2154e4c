"""Numbers that the checks at ingest look at: a few per frame, worked out for many frames at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mlipdb.ingest.checks.columns import Columns, columns
from mlipdb.ingest.checks.pairs import FramePairs, frame_pairs
from mlipdb.ingest.reader import Frame
from mlipdb.labels import Label

ELEMENTS = 119  # atomic numbers 0 to 118
DISTANCES_PER_FRAME = 100  # pairs of atoms whose distance is worked out, a frame on average


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameSummaries:
    """What the checks keep of some frames, in order; NaN where a label does not give a number.

    keys are the source's ids; materials and methods numbers that stand for names (method 0: the source's). Frame
    atom_frames[k] has atom_counts[k] atoms of atom_numbers[k]. energy is in eV, volume Å³; stress_mean (a third of the
    trace, positive under tension), stress_max and stress_asymmetry (of two entries that should be equal) eV/Å³;
    net_force, max_force eV/Å, force_squares their sum in eV²/Å². shortest_vector of the cell and closest, the distance
    of two atoms, are in Å, closest NaN where it was not worked out. shapes are the products of cell vectors over the
    volume to 2/3. pairs are consecutive frames of the same atoms.
    """

    keys: tuple[str, ...]
    materials: Int64[np.ndarray, " frames"]
    methods: Int64[np.ndarray, " frames"]
    natoms: Int64[np.ndarray, " frames"]
    atom_frames: Int64[np.ndarray, " entries"]
    atom_numbers: Int64[np.ndarray, " entries"]
    atom_counts: Int64[np.ndarray, " entries"]
    periodic: Bool[np.ndarray, " frames"]
    isolated: Bool[np.ndarray, " frames"]
    energy: Float64[np.ndarray, " frames"]
    volume: Float64[np.ndarray, " frames"]
    stress_mean: Float64[np.ndarray, " frames"]
    stress_max: Float64[np.ndarray, " frames"]
    stress_asymmetry: Float64[np.ndarray, " frames"]
    net_force: Float64[np.ndarray, " frames"]
    max_force: Float64[np.ndarray, " frames"]
    force_squares: Float64[np.ndarray, " frames"]
    shortest_vector: Float64[np.ndarray, " frames"]
    closest: Float64[np.ndarray, " frames"]
    shapes: Float64[np.ndarray, "frames 6"]
    pairs: FramePairs

    def __len__(self) -> int:
        return len(self.keys)


def summarise(frames: Sequence[Frame]) -> FrameSummaries:
    """The numbers of some consecutive frames of a source, at about ten microseconds a frame."""
    data = columns(frames)
    forces = _of_forces(data)
    return FrameSummaries(
        keys=tuple(frame.external_id for frame in frames),
        materials=np.array([name_number(frame.material) for frame in frames], dtype=np.int64),
        methods=_methods([frame.label for frame in frames]),
        natoms=data.natoms,
        **_compositions(data),
        periodic=data.periodic,
        isolated=(data.natoms == 1) & data.aperiodic,
        energy=data.energy,
        volume=data.volume,
        **_of_stresses(data),
        **forces,
        shortest_vector=np.where(data.periodic, np.sqrt(np.square(data.cells).sum(axis=2)).min(axis=1), np.nan),
        closest=_closest(data, first=np.argsort(-np.nan_to_num(forces["max_force"]), kind="stable")),
        shapes=_shapes(data),
        pairs=frame_pairs(data),
    )


def name_number(name: str) -> int:
    """A number below 2**32 that stands for a name."""
    return crc32(name.encode())


def _methods(labels: Sequence[Label | None]) -> Int64[np.ndarray, " frames"]:
    """A number for the method that each label names; frames of one method mostly share the object."""
    known: dict[int, int] = {}
    found = np.zeros(len(labels), dtype=np.int64)
    for place, label in enumerate(labels):
        if label is not None and label.method is not None:
            method = label.method
            if id(method) not in known:
                known[id(method)] = name_number(repr(method))
            found[place] = known[id(method)]
    return found


def _compositions(data: Columns) -> dict[str, Any]:
    frames = np.repeat(np.arange(len(data)), data.natoms)
    counts = np.bincount(frames * ELEMENTS + data.numbers, minlength=1)
    present = np.flatnonzero(counts)
    return {
        "atom_frames": present // ELEMENTS,
        "atom_numbers": present % ELEMENTS,
        "atom_counts": counts[present].astype(np.int64),
    }


def _of_stresses(data: Columns) -> dict[str, Any]:
    stresses = data.stresses
    return {
        "stress_mean": np.trace(stresses, axis1=1, axis2=2) / 3,
        "stress_max": np.abs(stresses).max(axis=(1, 2)),
        "stress_asymmetry": np.abs(stresses - stresses.transpose(0, 2, 1)).max(axis=(1, 2)),
    }


def _of_forces(data: Columns) -> dict[str, Any]:
    squares = np.square(data.forces).sum(axis=1)
    if not len(data):
        return {name: np.zeros(0) for name in ("net_force", "max_force", "force_squares")}
    return {
        "net_force": np.sqrt(np.square(np.add.reduceat(data.forces, data.starts, axis=0)).sum(axis=1)),
        "max_force": np.sqrt(np.maximum.reduceat(squares, data.starts)),
        "force_squares": np.add.reduceat(squares, data.starts),
    }


def _shapes(data: Columns) -> Float64[np.ndarray, "frames 6"]:
    """Metric of the cell without its size, 0 where it is not periodic."""
    metric = np.einsum("kij,klj->kil", data.cells, data.cells)[:, *np.triu_indices(3)]
    return np.asarray(np.nan_to_num(metric / np.cbrt(data.volume)[:, None] ** 2))


def _closest(data: Columns, *, first: Int64[np.ndarray, " frames"]) -> Float64[np.ndarray, " frames"]:
    """Shortest distance of two atoms, for frames in the given order until the pairs of this batch are used up.

    Atoms that are too close show in the forces, so those frames come first. Images are taken by rounding, which is
    right for distances that are short beside the cell.
    """
    closest = np.full(len(data), np.nan)
    costs = np.square(data.natoms[first])
    chosen = first[(np.cumsum(costs) <= max(DISTANCES_PER_FRAME * len(data), 50_000)) & (costs > 1)]
    inverse = np.zeros_like(data.cells)
    inverse[data.periodic] = np.linalg.inv(data.cells[data.periodic])
    for size in np.unique(data.natoms[chosen]):
        frames = chosen[data.natoms[chosen] == size]
        rows = data.starts[frames][:, None] + np.arange(size)
        one, other = np.triu_indices(size, 1)
        places = data.positions[rows]
        vectors = places[:, one] - places[:, other]
        vectors -= np.round(vectors @ inverse[frames]) @ data.cells[frames]
        closest[frames] = np.sqrt(np.square(vectors).sum(axis=2).min(axis=1))
    return closest
