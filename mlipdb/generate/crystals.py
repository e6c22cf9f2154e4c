"""Random crystals with a symmetry, by pyxtal: an extra, imported only where they are made."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlipdb.errors import ConfigError, MissingExtraError
from mlipdb.generate.making import Making
from mlipdb.structures import SYMBOLS, Structure, make_structure

ATTEMPTS = 200  # at one crystal: most groups do not fit most compositions
KINDS_OF_ATOMS = 3  # at most, in one crystal


def check_pyxtal() -> None:
    """Raise MissingExtraError with the command to run where pyxtal is not installed."""
    try:
        import pyxtal  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise MissingExtraError(
            f"random crystals need pyxtal, which is not installed ({error}); run `pip install 'mlipdb[crystals]'`, or "
            "make another kind"
        ) from error


def crystal(
    elements: Sequence[int], making: Making, *, random: np.random.Generator
) -> tuple[Structure, dict[str, str]]:
    """One crystal of some of the elements, of a space group drawn anew until one fits. Raises ConfigError."""
    for _ in range(ATTEMPTS):
        kinds = random.choice(
            sorted(elements), size=random.integers(1, min(KINDS_OF_ATOMS, len(elements)) + 1), replace=False
        )
        counts = random.integers(1, max(2, making.atoms // len(kinds) + 1), size=len(kinds))
        group = int(random.integers(2, 231))
        found = _made(group, kinds, counts, random=random)
        if found is not None and len(found) <= making.atoms:
            return found, {"group": str(group)}
    raise ConfigError(f"no crystal of at most {making.atoms} atoms was found in {ATTEMPTS} attempts; give more --atoms")


def _made(group: int, kinds: Any, counts: Any, *, random: np.random.Generator) -> Structure | None:
    """What pyxtal makes of it: None where the composition does not fit the group, or atoms find no room."""
    from pyxtal import pyxtal
    from pyxtal.msg import Comp_CompatibilityError, VolumeError

    crystal = pyxtal()
    try:
        symbols = [SYMBOLS[number] for number in kinds]
        crystal.from_random(3, group, symbols, [int(count) for count in counts], random_state=random)
    except (Comp_CompatibilityError, VolumeError):
        return None
    if not crystal.valid:
        return None
    atoms = crystal.to_ase()
    return make_structure(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=(True, True, True))
