"""Two atoms brought together: the curve of every pair of elements."""

from collections.abc import Collection
from itertools import combinations_with_replacement

import numpy as np

from mlipdb.generate.shortest import radii_sum
from mlipdb.structures import SYMBOLS, Structure, make_structure
from mlipdb.trainers.forgetting.answers import answers
from mlipdb.trainers.forgetting.curve import SHORT, Curve
from mlipdb.trainers.models.base import AbstractModel

NEAREST, FARTHEST = 0.35, 3.0  # of the sum of covalent radii
WALL_POINTS, OUTER_POINTS = 24, 36
APART = 2.0  # Å beyond the cutoff: where the two are each alone

FRACTIONS = np.concatenate(
    [np.linspace(NEAREST, SHORT, WALL_POINTS, endpoint=False), np.linspace(SHORT, FARTHEST, OUTER_POINTS)]
)


def dimer_curves(model: AbstractModel, elements: Collection[int]) -> list[Curve]:
    """The curve of every pair of these elements, homonuclear ones included."""
    pairs = list(combinations_with_replacement(sorted(elements), 2))
    structures = [each for pair in pairs for each in _dimers(pair, apart=model.cutoff + APART)]
    found, count = answers(model, structures), len(FRACTIONS) + 1
    curves = []
    for place, (first, second) in enumerate(pairs):
        *near, far = found[place * count : (place + 1) * count]
        curves.append(
            Curve(
                name=f"{SYMBOLS[first]}-{SYMBOLS[second]}",
                fractions=FRACTIONS,
                energies=np.array([each.energy - far.energy for each in near], dtype=np.float64),
                forces=np.array([(each.forces[1, 0] - each.forces[0, 0]) / 2 for each in near], dtype=np.float64),
            )
        )
    return curves


def _dimers(pair: tuple[int, int], *, apart: float) -> list[Structure]:
    """The pair along x at every distance, and once so far apart that neither sees the other."""
    distances = [*(FRACTIONS * radii_sum(*pair)), apart]
    return [make_structure(pair, [[0.0, 0.0, 0.0], [distance, 0.0, 0.0]]) for distance in distances]
