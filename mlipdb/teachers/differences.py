"""Hessian rows by central differences of forces, for teachers that give no second derivatives."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int32

from mlipdb.errors import ConfigError
from mlipdb.structures import Structure

# Å, phonopy's too: float32 forces, good to 1e-5 eV/Å, give rows to 1e-3 eV/Å², and so does a third derivative of the
# forces of 50 eV/Å⁴ that the differences leave out. Smaller steps are for calculators in float64.
DEFAULT_STEP = 0.01

Forces = Float64[np.ndarray, "atoms 3"]
Rows = Float64[np.ndarray, "rows atoms 3"]


def chosen_step(step: float | None) -> float:
    """The step in Å that was asked for, or the default; it belongs into the settings of TeacherInfo as ``step``.

    Raises ConfigError for one that cannot be meant: not above zero, or larger than half an Å.
    """
    if step is None:
        return DEFAULT_STEP
    if not 0 < step <= 0.5:
        raise ConfigError(f"--step {step} Å makes no central difference; give one between 1e-4 and 0.05, such as 0.01")
    return step


def difference_rows(
    forces: Callable[[list[Structure]], Sequence[Forces]],
    structures: Sequence[Structure],
    row_numbers: Sequence[Int32[np.ndarray, " _"]],
    *,
    step: float,
) -> list[Rows | None]:
    """Rows +d²E/dx_r dx in eV/Å² of each structure, as minus the central difference of its forces; None where none.

    The k-th rows of all structures are made by two calls of forces, each with no more structures than there are, so
    that what fits once fits every time. Forces that are no gradient give columns of minus their Jacobian: how all of
    them change as coordinate r moves.
    """
    found: list[Rows | None] = [
        np.zeros((len(numbers), len(structure), 3)) if len(numbers) else None
        for structure, numbers in zip(structures, row_numbers, strict=True)
    ]
    for place in range(max((len(numbers) for numbers in row_numbers), default=0)):
        chosen = [index for index, numbers in enumerate(row_numbers) if place < len(numbers)]
        moves = [(structures[index], int(row_numbers[index][place])) for index in chosen]
        ahead = forces([displaced(structure, row=row, by=step) for structure, row in moves])
        behind = forces([displaced(structure, row=row, by=-step) for structure, row in moves])
        for index, plus, minus in zip(chosen, ahead, behind, strict=True):
            rows = found[index]
            if rows is not None:
                rows[place] = (np.asarray(minus, np.float64) - np.asarray(plus, np.float64)) / (2 * step)
    return found


def displaced(structure: Structure, *, row: int, by: float) -> Structure:
    """The structure with the coordinate row = 3·atom + axis moved by so many Å."""
    positions = structure.positions.copy()
    positions[row // 3, row % 3] += by
    return replace(structure, positions=positions, id=None)
