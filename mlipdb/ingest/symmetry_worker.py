"""What a symmetry worker process runs: space group numbers of cells."""

import logging
from collections.abc import Sequence

import moyopy
import numpy as np
from jaxtyping import Float64, UInt8

# cell in Å with rows as lattice vectors, positions in Å, atomic numbers
Crystal = tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "_ 3"], UInt8[np.ndarray, " _"]]


def space_group_numbers(crystals: Sequence[Crystal], symprec: float) -> list[int | None]:
    """International number of each crystal at symprec in Å; None where the search fails."""
    # It warns of every input cell that is not primitive in its sense, which says nothing about the group.
    logging.getLogger("moyo").setLevel(logging.ERROR)
    return [_number(crystal, symprec) for crystal in crystals]


def _number(crystal: Crystal, symprec: float) -> int | None:
    cell, positions, numbers = crystal
    try:
        fractional = np.linalg.solve(cell.T, positions.T).T
        found = moyopy.MoyoDataset(moyopy.Cell(cell.tolist(), fractional.tolist(), numbers.tolist()), symprec=symprec)
        return int(found.number)
    except ValueError:  # moyo's own report that it found no consistent group; np.linalg.LinAlgError is one, too
        return None
    except BaseException as error:
        # A panic in Rust arrives as a class that cannot be imported and is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        return None
