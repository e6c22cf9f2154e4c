"""What a teacher is: a model that labels structures, and says exactly which model it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from mlipdb.errors import ConfigError, LabelError, did_you_mean
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labels import ENERGY_KINDS, Label, Method
from mlipdb.structures import SYMBOLS, Structure


@dataclass(frozen=True, kw_only=True)
class TeacherInfo:
    """Which model a teacher is: enough to tell two checkpoints apart, and what it can do.

    atomic_numbers are the elements it covers. e0_included says whether its atomic energies contain the isolated-atom
    energies. energy is the kind that it gives, a field of Label: that of the labels it was trained on. takes_charge
    says that it is given the total charge, and itself refuses those that it cannot take. dtype is that of its
    arithmetic. settings are plain JSON values that change its labels beside the weights: head, modal, task, the step
    of finite differences.
    """

    name: str
    weights_sha256: str
    package: str
    package_version: str
    dtype: str
    e0_included: bool
    atomic_numbers: frozenset[int]
    functional: str | None = None
    energy: str = ENERGY_KINDS[0]
    takes_charge: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def method(self) -> Method:
        """The method row under which this teacher's labels are stored."""
        kind = {} if self.energy == ENERGY_KINDS[0] else {"energy_kind": self.energy}
        return Method(
            kind="teacher",
            name=self.name,
            functional=self.functional,
            weights_sha256=self.weights_sha256,
            package=self.package,
            package_version=self.package_version,
            dtype=self.dtype,
            e0_convention="e0 included" if self.e0_included else "e0 excluded",
            settings={**self.settings, **kind},
        )

    def check_structure(self, structure: Structure) -> None:
        """Raise LabelError for an element that this teacher does not cover, and for a charge that it would not see."""
        foreign = [SYMBOLS[number] for number in structure.composition if number not in self.atomic_numbers]
        if foreign:
            raise LabelError(f"{self.name} does not cover {', '.join(foreign)}")
        if structure.charge and not self.takes_charge:
            raise LabelError(
                f"{self.name} knows no charges: it would label a structure of {structure.charge:+g} e as a neutral one"
            )


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """How to load a teacher, as the user asked; None leaves the choice to the teacher. Picklable, for workers.

    weights is a file or folder to use instead of fetching into cache; trust_weights allows one that runs code when it
    is loaded. device is such as cpu or cuda:0, dtype float32 or float64, step the one of central differences in Å.
    settings are the teacher's own by name, as text. worker_python is the interpreter of another environment, in which
    the teacher is to run.
    """

    weights: Path | None = None
    cache: Path | None = None
    offline: bool = False
    trust_weights: bool = False
    device: str | None = None
    dtype: str | None = None
    step: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    worker_python: Path | None = None

    def refuse_unused(self, teacher: str, *names: str, known_settings: Sequence[str] = ()) -> None:
        """Raise ConfigError when an option that this teacher has no use for is set, or a setting that it does not know.

        names are fields among device, dtype and step; an option that would be ignored might be believed.
        """
        for name in names:
            if getattr(self, name) is not None:
                raise ConfigError(f"teacher {teacher} has no use for {name}={getattr(self, name)}; leave --{name} out")
        for name in self.settings:
            if name not in known_settings:
                listed = ", ".join(known_settings) or "none"
                raise ConfigError(
                    f"teacher {teacher} has no setting {name!r}.{did_you_mean(name, known_settings)} Settings: {listed}"
                )


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
    def load(cls, name: str, options: TeacherOptions) -> Teacher:
        """The teacher of that name; whole, where it goes on after a colon, as in ``ase:module.Class``.

        Weights are from a file where the options give one, else from the package or fetched into the cache.
        """
        ...
