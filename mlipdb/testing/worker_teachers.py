"""Teachers for tests of executors: importable, because workers load them, and able to die at work."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlipdb.labelling.teacher import LabelRequest, Teacher
from mlipdb.labels import Label
from mlipdb.structures import Structure
from mlipdb.testing.potential import PairPotential


@dataclass(frozen=True, kw_only=True)
class LoadPotential:
    """How a worker gets the pair potential. Each batch takes `seconds` more.

    A structure that holds the element `deadly` ends the worker's process: always, or, with a file `once`, only while
    that file is not there, and the worker makes it before it dies. After `broken` batches all raise RuntimeError.
    """

    strength: float = 0.3
    seconds: float = 0.0
    deadly: int | None = None
    once: Path | None = None
    broken: int | None = None

    def __call__(self) -> Teacher:
        """The teacher."""
        return _Dangerous(self)


class _Dangerous(PairPotential):
    def __init__(self, how: LoadPotential) -> None:
        super().__init__(strength=how.strength)
        self._how = how
        self._batches = 0

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        time.sleep(self._how.seconds)
        elements = {number for structure in structures for number in structure.composition}
        if self._how.deadly in elements and not (self._how.once and self._how.once.exists()):
            if self._how.once:
                self._how.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self._batches += 1
        if self._how.broken is not None and self._batches > self._how.broken:
            raise RuntimeError("broken cable")
        return super().label(structures, request)
