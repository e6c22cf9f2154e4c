"""Pairs of atoms in a box."""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np

from mlipdb.errors import ConfigError
from mlipdb.generate.making import Making
from mlipdb.generate.shortest import radii_sum
from mlipdb.structures import SYMBOLS, Structure, make_structure


def dimer(
    elements: Sequence[int], making: Making, *, number: int, random: np.random.Generator
) -> tuple[Structure, dict[str, str], str]:
    """The numbered dimer, its facts, and its pair: pairs take turns, distances are uniform between the fractions.

    The box must hold it with as much room to its images as it is long.
    """
    pairs = list(combinations_with_replacement(sorted(elements), 2))
    first, second = pairs[number % len(pairs)]
    fraction = float(random.uniform(making.nearest, making.farthest))
    distance = fraction * radii_sum(first, second)
    if 2 * distance > making.box:
        raise ConfigError(f"a box of {making.box} Å is too small for a dimer of {distance:.2f} Å; give a larger --box")
    middle = making.box / 2
    positions = [[middle - distance / 2, middle, middle], [middle + distance / 2, middle, middle]]
    structure = make_structure([first, second], positions, cell=making.box * np.eye(3), pbc=(True, True, True))
    return structure, {"fraction": f"{fraction:.6g}"}, f"{SYMBOLS[first]}-{SYMBOLS[second]}"
