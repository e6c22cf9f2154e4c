"""How much is asked for when forgetting is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much: structures of each subset, cells of at most cell_atoms atoms, steps of dynamics; 0 for none of them.

    elements are those whose pairs are dimers, by default those of the subset's train part; the seed draws samples and
    velocities.
    """

    sample: int = 200
    elements: tuple[int, ...] = ()
    cells: int = 4
    cell_atoms: int = 12
    steps: int = 200
    seed: int = 0
