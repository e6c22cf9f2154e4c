"""A potential whose derivatives are known exactly: the teacher of the tests."""

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int32

from mlipdb.labelling.batches import BatchLimits
from mlipdb.labelling.teacher import LabelRequest, TeacherInfo
from mlipdb.labels import Label
from mlipdb.structures import Structure

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


class PairPotential:
    """E = ½ Σ A(Zi, Zj) (1 - r²/rc²)³ over all ordered pairs closer than rc, images included, plus E0 = -Z per atom.

    Zero with its first two derivatives at the cutoff. strength is A of two hydrogen atoms in eV; A grows with
    √(Zi Zj). A negative strength attracts. Float64 throughout, in numpy, with an exact Hessian.
    """

    def __init__(
        self, *, cutoff: float = 4.0, strength: float = 0.3, elements: frozenset[int] = frozenset(range(1, 95))
    ) -> None:
        self.batch_limits = BatchLimits()
        self.cutoff = cutoff
        self.strength = strength
        text = f"pair potential {cutoff!r} {strength!r} {sorted(elements)}"
        self.info = TeacherInfo(
            name="pair-potential",
            weights_sha256=hashlib.sha256(text.encode()).hexdigest(),
            package="mlipdb.testing",
            package_version="1",
            dtype="float64",
            e0_included=True,
            atomic_numbers=elements,
        )

    def edges(self, structure: Structure) -> int:
        """Ordered pairs within the cutoff, images included."""
        return len(self._pairs(structure)[0])

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """One label per structure; LabelError for an element that it does not cover."""
        for structure in structures:
            self.info.check_structure(structure)
        pairs = zip(structures, request.hessian_row_numbers, strict=True)
        return [self._label(structure, rows=rows, base=request.base) for structure, rows in pairs]

    def hessian(self, structure: Structure) -> Float64[np.ndarray, "degrees atoms 3"]:
        """+d²E/dx_r dx for every r = 3·atom + axis, eV/Å²."""
        senders, receivers, vectors = self._pairs(structure)
        amplitude, inside = self._amplitude(structure, senders, receivers), self._inside(vectors)
        slope = -3.0 * amplitude * inside**2 / self.cutoff**2  # dφ/d(r²)
        curve = 6.0 * amplitude * inside / self.cutoff**4  # d²φ/d(r²)²
        outer = vectors[:, :, None] * vectors[:, None, :]
        block = slope[:, None, None] * np.eye(3) + 2.0 * curve[:, None, None] * outer  # ½ d²φ/dd²
        size = len(structure)
        result = np.zeros((size, size, 3, 3))
        for first, second in itertools.product((senders, receivers), repeat=2):
            np.add.at(result, (first, second), block if first is second else -block)
        return result.transpose(0, 2, 1, 3).reshape(3 * size, size, 3)

    def _label(self, structure: Structure, *, rows: Int32[np.ndarray, " rows"], base: bool) -> Label:
        hessian_rows = self.hessian(structure)[rows] if len(rows) else None
        row_numbers = rows if len(rows) else None
        if not base:
            return Label(hessian_row_numbers=row_numbers, hessian_rows=hessian_rows)
        senders, receivers, vectors = self._pairs(structure)
        amplitude, inside = self._amplitude(structure, senders, receivers), self._inside(vectors)
        atomic = -structure.atomic_numbers.astype(np.float64)
        np.add.at(atomic, receivers, 0.5 * amplitude * inside**3)
        half = (-3.0 * amplitude * inside**2 / self.cutoff**2)[:, None] * vectors  # ½ dφ/dd
        forces = np.zeros((len(structure), 3))
        np.add.at(forces, senders, -half)
        np.add.at(forces, receivers, half)
        volume = structure.volume
        return Label(
            energy_uncorrected=float(atomic.sum()),
            forces=forces,
            stress=None if volume is None else vectors.T @ half / volume,
            atomic_energies=atomic,
            atomic_energies_include_e0=True,
            hessian_row_numbers=row_numbers,
            hessian_rows=hessian_rows,
        )

    def _pairs(self, structure: Structure) -> Pairs:
        """Senders, receivers and vectors x_sender - x_receiver + image, by trying every image that can be in reach."""
        positions = structure.positions
        found: list[Pairs] = []
        for image in itertools.product(*(range(-reach, reach + 1) for reach in self._reach(structure))):
            vectors = positions[None, :] - positions[:, None] + np.array(image, dtype=np.float64) @ structure.cell
            near = np.square(vectors).sum(axis=2) < self.cutoff**2
            if not any(image):
                np.fill_diagonal(near, val=False)
            receivers, senders = np.nonzero(near)
            found.append((senders, receivers, vectors[near]))
        senders, receivers, all_vectors = (np.concatenate(part) for part in zip(*found, strict=True))
        return senders, receivers, all_vectors

    def _reach(self, structure: Structure) -> tuple[int, ...]:
        """How many images away a neighbour can be along each periodic axis, for atoms anywhere."""
        if not any(structure.pbc):
            return (0, 0, 0)
        cell = np.where(np.linalg.norm(structure.cell, axis=1)[:, None] > 0, structure.cell, 1e3 * np.eye(3))
        inverse = np.linalg.inv(cell)
        spread = np.ptp(structure.positions @ inverse, axis=0)
        steps = np.ceil(self.cutoff * np.linalg.norm(inverse, axis=0) + spread).astype(int)
        return tuple(int(step) if periodic else 0 for step, periodic in zip(steps, structure.pbc, strict=True))

    def _amplitude(self, structure: Structure, senders: np.ndarray, receivers: np.ndarray) -> np.ndarray:
        numbers = structure.atomic_numbers.astype(np.float64)
        return np.asarray(self.strength * np.sqrt(numbers[senders] * numbers[receivers]))

    def _inside(self, vectors: np.ndarray) -> np.ndarray:
        return np.asarray(1.0 - np.square(vectors).sum(axis=1) / self.cutoff**2)
