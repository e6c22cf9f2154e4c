"""How much is asked for when forgetting is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is asked for. cells and steps may be 0.

    sample counts structures of each subset, cells those to press, of at most cell_atoms atoms where there are such, and
    steps those of dynamics, 1 fs each. elements are those whose pairs are dimers, by default those of the train part of
    the subset; the seed draws samples and velocities.
    """

    sample: int = 200
    elements: tuple[int, ...] = ()
    cells: int = 4
    cell_atoms: int = 12
    steps: int = 200
    seed: int = 0
