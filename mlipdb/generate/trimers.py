"""Three atoms in a box: a middle one with two others, so that angles at short range are seen too."""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np

from mlipdb.errors import ConfigError
from mlipdb.generate.making import Making
from mlipdb.generate.shortest import radii_sum
from mlipdb.structures import SYMBOLS, Structure, make_structure


def trimer(
    elements: Sequence[int], making: Making, *, number: int, random: np.random.Generator
) -> tuple[Structure, dict[str, str], str]:
    """The numbered trimer, its facts, and what it is of, as in O-H-O: the middle atom and each pair take turns.

    Both bonds are uniform between the fractions. The cosine of the angle is uniform, but no end is nearer to the other
    than the least fraction. The box must hold it with as much room to its images as it is long.
    """
    ends = list(combinations_with_replacement(sorted(elements), 2))
    middle = sorted(elements)[number // len(ends) % len(elements)]
    first, second = ends[number % len(ends)]
    fractions = random.uniform(making.nearest, making.farthest, 2)
    one, other = (fraction * radii_sum(end, middle) for fraction, end in zip(fractions, (first, second), strict=True))
    if 2 * (one + other) > making.box:
        raise ConfigError(
            f"a box of {making.box} Å is too small for a trimer of {one + other:.2f} Å; give a larger --box"
        )
    least = making.nearest * radii_sum(first, second)
    cosine = random.uniform(-1.0, min(1.0, (one**2 + other**2 - least**2) / (2 * one * other)))
    away = np.array([[0.0, 0.0, 0.0], [one, 0.0, 0.0], [other * cosine, other * np.sqrt(1 - cosine**2), 0.0]])
    positions = away - (away.min(axis=0) + away.max(axis=0)) / 2 + making.box / 2
    structure = make_structure([middle, first, second], positions, cell=making.box * np.eye(3), pbc=(True, True, True))
    facts = {"fraction": f"{min(fractions):.6g}", "angle": f"{np.degrees(np.arccos(cosine)):.6g}"}
    return structure, facts, f"{SYMBOLS[first]}-{SYMBOLS[middle]}-{SYMBOLS[second]}"
