"""The teacher ``ase:module.Class``: any ASE calculator that gives energy and forces."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import Calculator
from jaxtyping import Float64

from mlipdb.errors import ConfigError, LabelError
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labelling.teacher import LabelRequest, TeacherInfo, TeacherOptions
from mlipdb.labels import Label
from mlipdb.structures import Structure
from mlipdb.teachers.calculators import Origin, calculator_class, constructor_arguments, identity
from mlipdb.teachers.differences import chosen_step, difference_rows

SUM_TOLERANCE = 1e-5  # eV an atom by which energies may miss the energy and still be its parts, summed in float32


class AseTeacher:
    """Labels by a calculator, one structure at a time; Hessian rows are central differences of its forces.

    energy_uncorrected is the calculator's energy, free_energy its free energy where that is another number. Atomic
    energies are stored where it gives ``energies`` that add up to the energy, so that they contain whatever it does.
    """

    def __init__(self, calculator: Any, info: TeacherInfo, *, step: float) -> None:
        self.info = info
        self.batch_limits = BatchLimits(structures=1)  # so that one that fails costs no other's calculation
        self._calculator: Any = calculator
        self._remembers = isinstance(calculator, Calculator)
        self._step = step

    @classmethod
    def load(cls, name: str, options: TeacherOptions) -> "AseTeacher":
        """The calculator that the name gives after its colon, made with the settings as arguments.

        The same class of the same package version with equal settings is the same teacher; of a setting that is a
        file, the content counts and not the path.
        """
        _refuse_other_options(name, options)
        kind = calculator_class(name)
        settings, origin, step = options.settings, Origin.of(kind), chosen_step(options.step)
        try:
            calculator = kind(**constructor_arguments(settings))
        except (TypeError, ValueError) as error:
            given = ", ".join(f"{key}={value}" for key, value in settings.items()) or "no settings"
            raise ConfigError(
                f"{name} cannot be made with {given}: {error}. Give its arguments as --set NAME=VALUE"
            ) from error
        described = identity(settings)
        info = TeacherInfo(
            name=name,
            weights_sha256=origin.sha256(described),
            package=origin.package,
            package_version=origin.version,
            dtype="as the calculator",
            e0_included=True,
            atomic_numbers=frozenset(range(1, 119)),  # a calculator does not say; it fails where it cannot
            takes_charge=True,
            settings={**described, "step": step},
        )
        return cls(calculator, info, step=step)

    def edges(self, structure: Structure) -> int:
        """The number of atoms: how the work grows is not known."""
        return len(structure)

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """One label per structure, by one calculation and two more for each Hessian row.

        Raises LabelError with the calculator's reason where it fails, MemoryError where the memory is too small.
        """
        rows = difference_rows(self._forces, structures, request.hessian_row_numbers, step=self._step)
        return [
            replace(
                self._base(structure) if request.base else Label(),
                hessian_row_numbers=None if part is None else numbers,
                hessian_rows=part,
            )
            for structure, numbers, part in zip(structures, request.hessian_row_numbers, rows, strict=True)
        ]

    def _forces(self, structures: list[Structure]) -> list[Float64[np.ndarray, "atoms 3"]]:
        return [self._ask(lambda atoms: atoms.get_forces(), structure) for structure in structures]

    def _base(self, structure: Structure) -> Label:
        label: Label = self._ask(lambda atoms: self._base_of(atoms, structure), structure)
        return label

    def _base_of(self, atoms: Any, structure: Structure) -> Label:
        forces = np.array(atoms.get_forces(), np.float64)  # first: most calculators make the energy on the way
        stress = _optional(lambda: np.array(atoms.get_stress(voigt=False), np.float64)) if all(structure.pbc) else None
        energy = float(atoms.get_potential_energy())
        free_energy = _optional(lambda: float(atoms.get_potential_energy(force_consistent=True)))
        atomic = _optional(lambda: _parts(atoms.get_potential_energies(), energy))
        return Label(
            energy_uncorrected=energy,
            free_energy=None if free_energy == energy else free_energy,
            forces=forces,
            stress=stress,
            atomic_energies=atomic,
            atomic_energies_include_e0=None if atomic is None else True,
        )

    def _ask(self, question: Callable[[Any], Any], structure: Structure) -> Any:
        """The calculator's answer for a structure, which it has not seen before as far as it knows."""
        if self._remembers:
            self._calculator.reset()  # it compares positions and not the charge in atoms.info
        atoms = _atoms(structure)
        atoms.calc = self._calculator
        try:
            return question(atoms)
        except MemoryError:
            raise
        except Exception as error:
            if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
                raise MemoryError(str(error).partition("\n")[0]) from error
            raise LabelError(f"{self.info.name} failed: {type(error).__name__}: {error}") from error


def _refuse_other_options(name: str, options: TeacherOptions) -> None:
    """Raise ConfigError for options that a calculator takes as arguments of its own, under names of its own."""
    given = {"--weights": options.weights, "--device": options.device, "--dtype": options.dtype}
    for option, value in given.items():
        if value is not None:
            raise ConfigError(
                f"{name} does not take {option} {value}; give it as the calculator's own argument, --set NAME={value}"
            )


def _atoms(structure: Structure) -> ase.Atoms:
    """The structure for ASE. Charge and multiplicity, where known, are in info, where most calculators look."""
    known = {"charge": structure.charge, "spin": structure.spin_multiplicity}
    return ase.Atoms(
        numbers=structure.atomic_numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.pbc,
        info={name: int(value) if value == int(value) else value for name, value in known.items() if value is not None},
    )


def _parts(energies: np.ndarray, energy: float) -> Float64[np.ndarray, " atoms"] | None:
    """Energies of the atoms in eV where they add up to the energy; None where they mean something else."""
    parts = np.array(energies, np.float64)
    return parts if abs(parts.sum() - energy) <= SUM_TOLERANCE * len(parts) + 1e-7 * abs(energy) else None


def _optional(ask: Callable[[], Any]) -> Any:
    """What a calculator gives, or None where it does not."""
    try:
        return ask()
    except NotImplementedError:  # PropertyNotImplementedError is one
        return None
