"""Whether a stress was multiplied by the volume: taken where a file's flag and the sizes of its stresses agree."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import MlipdbError
from mlipdb.ingest.notes import note
from mlipdb.ingest.units_of import to_internal

VIRIAL = "virial"  # eV, the stress times the volume
LARGEST = 0.5  # eV/Å³, 80 GPa: below it half of a set's stresses are taken to lie


class StressScale:
    """Stress or stress times volume, decided once for a file.

    declared is the user's unit (or ``virial``). Else the flag is compared with the median size of the first batch's
    stresses: not multiplied and small is eV/Å³; multiplied, large, and small when divided is eV; anything else is
    left out with a note. Numbers that come out are eV/Å³, positive under tension.
    """

    def __init__(self, path: Path, declared: str | None, options: Mapping[str, Any]) -> None:
        self._path, self._options = path, options
        self._unit: str | None = declared
        self.open = declared is None

    def look(self, rows: Iterable[tuple[Float64[np.ndarray, "..."] | None, float | None, bool]]) -> None:
        """See the stress, volume and flag of rows; the first that differ from zero settle the reading."""
        sizes, flags = [], 0
        for stress, volume, flag in rows:
            size = float(np.abs(stress).max()) if stress is not None and volume and stress.size else 0.0
            if size > 0 and np.isfinite(size) and volume:
                sizes.append((size, size / volume))
                flags += flag
        if sizes:
            plain, divided = np.median(np.array(sizes), axis=0)
            self._unit = self._decide(float(plain), float(divided), flags=flags, of=len(sizes))
            self.open = False

    def stress(self, stress: Float64[np.ndarray, "..."], volume: float | None) -> Float64[np.ndarray, "3 3"] | None:
        """A row's stress, None where there is no volume or the reading is not settled."""
        if volume is None or (self._unit is None and stress.any()):
            return None
        if stress.shape != (3, 3):
            raise MlipdbError(f"the stress has the shape {stress.shape}; expected (3, 3)")
        if self._unit is None or self._unit == VIRIAL:
            return np.asarray(stress / volume)
        return to_internal(stress, self._unit)

    def _decide(self, plain: float, divided: float, *, flags: int, of: int) -> str | None:
        if flags == 0 and plain < LARGEST:
            return "eV/Å³"
        if flags == of and plain > LARGEST > divided:
            return VIRIAL
        note(
            self._options,
            f"{self._path.name}: the stress was left out: half of its values exceed {plain:.2g} (divided by the "
            f"volume {divided:.2g} eV/Å³) and cauchy_stress_volume_normalized is true in {flags} of {of} rows, which "
            f"does not fit; say how to read it with --unit stress=eV/Å³ or --unit stress={VIRIAL}",
        )
        return None
