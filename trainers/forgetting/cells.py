"""Crystals and molecules pressed together, all atoms at once: energy per atom against the shortest distance."""

from collections.abc import Sequence

import numpy as np

from mlipdb.generate.changed import compressed
from mlipdb.structures import SYMBOLS, Structure
from mlipdb.trainers.forgetting.answers import answers
from mlipdb.trainers.forgetting.curve import SHORT, Curve
from mlipdb.trainers.models.base import AbstractModel

NEAREST = 0.45  # of the sum of covalent radii
FARTHEST = 1.2
WALL_POINTS, OUTER_POINTS = 6, 8

FRACTIONS = np.concatenate(
    [np.linspace(NEAREST, SHORT, WALL_POINTS, endpoint=False), np.linspace(SHORT, FARTHEST, OUTER_POINTS)]
)


def cell_curves(model: AbstractModel, cells: Sequence[Structure]) -> list[Curve]:
    """The curve of each structure, scaled evenly with its cell where it has one."""
    scaled = [compressed(cell, float(fraction)) for cell in cells for fraction in FRACTIONS]
    found, count = answers(model, scaled), len(FRACTIONS)
    curves = []
    for place, cell in enumerate(cells):
        energies = [each.energy / len(cell) for each in found[place * count : (place + 1) * count]]
        per_atom = np.array(energies, dtype=np.float64)
        forces = -np.gradient(per_atom, FRACTIONS)
        curves.append(Curve(name=_name(cell), fractions=FRACTIONS, energies=per_atom, forces=forces))
    return curves


def _name(cell: Structure) -> str:
    formula = "".join(f"{SYMBOLS[z]}{n if n > 1 else ''}" for z, n in cell.composition.items())
    return formula if cell.id is None else f"{formula} ({cell.id})"
