"""Work that goes wrong the way compiled code does; importable, because worker processes import what they run."""

import os
import time
from collections.abc import Sequence

from mlipdb.ingest.symmetry_worker import Crystal, space_group_numbers

KILLER, SLEEPER = 13, 79  # atomic numbers


def dangerous_search(crystals: Sequence[Crystal], symprec: float) -> list[int | None]:
    """A space-group search that kills its process at aluminium and hangs at gold."""
    for _, _, numbers in crystals:
        if numbers[0] == KILLER:
            os._exit(11)
        if numbers[0] == SLEEPER:
            time.sleep(60)
    return space_group_numbers(crystals, symprec)
