"""Structures changed: displaced at random, strained, pressed together."""

from dataclasses import replace

import numpy as np

from mlipdb.errors import ConfigError
from mlipdb.generate.making import Making
from mlipdb.generate.shortest import shortest_fraction
from mlipdb.structures import Structure

Facts = dict[str, str]


def changed(parent: Structure, making: Making, *, random: np.random.Generator) -> tuple[Structure, Facts]:
    """The parent changed as making says, and the facts of this one change."""
    if making.kind == "rattled":
        return _rattled(parent, making.sigma, random=random), {}
    if making.kind == "strained":
        return _strained(parent, making.strain, random=random), {}
    fraction = float(random.uniform(making.nearest, making.farthest))
    return compressed(parent, fraction), {"fraction": f"{fraction:.6g}"}


def usable(parent: Structure, kind: str) -> bool:
    """Whether a structure can be changed so: strain needs a cell, pressing two atoms."""
    if kind == "strained":
        return any(parent.pbc)
    return kind != "compressed" or shortest_fraction(parent) is not None


def compressed(parent: Structure, fraction: float) -> Structure:
    """The parent scaled evenly, so that its nearest atoms are at that fraction of the sum of their covalent radii."""
    now = shortest_fraction(parent)
    if now is None:
        raise ConfigError("a single atom without a cell has no distance to scale; leave such structures out")
    factor = fraction / now
    return replace(parent, positions=parent.positions * factor, cell=parent.cell * factor, id=None)


def _rattled(parent: Structure, sigma: float, *, random: np.random.Generator) -> Structure:
    return replace(parent, positions=parent.positions + random.normal(0.0, sigma, parent.positions.shape), id=None)


def _strained(parent: Structure, largest: float, *, random: np.random.Generator) -> Structure:
    """Every component of the strain is uniform up to the largest; atoms move with the cell."""
    drawn = random.uniform(-largest, largest, (3, 3))
    deformation = np.eye(3) + np.triu(drawn) + np.triu(drawn, 1).T
    return replace(parent, positions=parent.positions @ deformation, cell=parent.cell @ deformation, id=None)
