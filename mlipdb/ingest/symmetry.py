"""Space groups of structures, and the search that survives a crash or an endless loop of the tool."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import moyopy

from mlipdb.ingest.process import WorkerDied, WorkerProcess
from mlipdb.ingest.symmetry_worker import Crystal, space_group_numbers
from mlipdb.records import SpaceGroup, SymmetryTool
from mlipdb.structures import Structure

PATIENCE = 60.0  # seconds for one crystal; a search that takes longer hangs
Search = Callable[..., list[int | None]]  # of crystals and symprec, as space_group_numbers


@cache
def space_group_symbol(number: int) -> str:
    """Short Hermann-Mauguin symbol without spaces, such as ``P6_3/mmc``."""
    return str(moyopy.SpaceGroupType(number).hm_short).replace(" ", "")


def symmetry_tool(symprec: float) -> SymmetryTool:
    """What finds the space groups, with its tolerance in Å."""
    return SymmetryTool("moyopy", moyopy.__version__, symprec)


def find_groups(
    structures: Sequence[Structure], search: Callable[[Sequence[Crystal]], Sequence[int | None]]
) -> list[SpaceGroup | None]:
    """The group of each structure in order; None where it is not periodic in three directions or none was found."""
    crystals: list[Crystal] = [(s.cell, s.positions, s.atomic_numbers) for s in structures if all(s.pbc)]
    found = iter(search(crystals) if crystals else [])
    numbers = [next(found) if all(structure.pbc) else None for structure in structures]
    return [None if number is None else SpaceGroup(number, space_group_symbol(number)) for number in numbers]


def find_groups_carefully(
    structures: Sequence[Structure],
    symprec: float,
    *,
    search: Search = space_group_numbers,
    patience: float = PATIENCE,
) -> list[SpaceGroup | None]:
    """Like find_groups, one crystal after another in a process of its own.

    A structure on which the search fails, crashes its process or hangs has no group; the others are not affected.
    """
    return find_groups(structures, partial(_one_by_one, symprec=symprec, search=search, patience=patience))


def _one_by_one(crystals: Sequence[Crystal], *, symprec: float, search: Search, patience: float) -> list[int | None]:
    service = partial(_search_one, search, symprec)
    numbers: list[int | None] = []
    while len(numbers) < len(crystals):
        with WorkerProcess(service) as process:
            try:
                for crystal in crystals[len(numbers) :]:
                    process.submit(crystal)
                    numbers.append(process.result(patience))
            except WorkerDied as error:
                if error.killed:
                    raise
                numbers.append(None)
    return numbers


def _search_one(search: Search, symprec: float, crystal: Crystal) -> int | None:
    return search([crystal], symprec=symprec)[0]
