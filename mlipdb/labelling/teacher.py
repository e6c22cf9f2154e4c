"""What a teacher is: a model that labels structures, and says exactly which model it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from mlipdb.errors import LabelError
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labels import Label, Method
from mlipdb.structures import SYMBOLS, Structure


@dataclass(frozen=True, kw_only=True)
class TeacherInfo:
    """Which model a teacher is: enough to tell two checkpoints apart, and what it can do.

    atomic_numbers are the elements it covers. e0_included says whether its atomic energies contain the isolated-atom
    energies. dtype is that of its arithmetic.
    """

    name: str
    weights_sha256: str
    package: str
    package_version: str
    dtype: str
    e0_included: bool
    atomic_numbers: frozenset[int]
    functional: str | None = None

    def method(self) -> Method:
        """The method row under which this teacher's labels are stored."""
        return Method(
            kind="teacher",
            name=self.name,
            functional=self.functional,
            weights_sha256=self.weights_sha256,
            package=self.package,
            package_version=self.package_version,
            dtype=self.dtype,
            e0_convention="e0 included" if self.e0_included else "e0 excluded",
        )

    def check_elements(self, structure: Structure) -> None:
        """Raise LabelError when the structure has an element that this teacher does not cover."""
        foreign = [SYMBOLS[number] for number in structure.composition if number not in self.atomic_numbers]
        if foreign:
            raise LabelError(f"{self.name} does not cover {', '.join(foreign)}")


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelRequest:
    """What to compute for each structure of a batch.

    With base, energies, forces, stress and atomic energies; hessian_row_numbers[i] are the rows of structure i
    (r = 3·atom + axis), empty for none.
    """

    base: bool
    hessian_row_numbers: Sequence[Int32[np.ndarray, " _"]]


@runtime_checkable
class Teacher(Protocol):
    """A model that labels structures. Results do not depend on what else is in the batch beyond rounding.

    batch_limits is what it can take at once on the device that it runs on.
    """

    info: TeacherInfo
    batch_limits: BatchLimits

    def edges(self, structure: Structure) -> int:
        """How many edges its graph of the structure has: the measure of work by which the runner sizes batches."""
        ...

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """One label per structure, in order; Hessian rows are +d²E/dx_r dx in eV/Å².

        Raises LabelError when it cannot label one of them, and MemoryError when the batch does not fit.
        """
        ...


class LoadableTeacher(Teacher, Protocol):
    """A teacher class as an entry point of the group mlipdb.teachers names it: one entry point a checkpoint name."""

    @classmethod
    def load(cls, name: str, *, weights: Path | None, cache: Path | None, offline: bool) -> Teacher:
        """The teacher of that name, from a file where one is given, else from the package or fetched into cache."""
        ...
