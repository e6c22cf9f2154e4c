"""Checks of what a source says twice or not at all: ids, energies and forces that are zero."""

import numpy as np

from mlipdb.ingest.checks.finding import Finding
from mlipdb.ingest.checks.samples import GroupSample
from mlipdb.ingest.checks.summaries import FrameSummaries, name_number

CAPACITY = 200_000  # ids that are held; beyond, some of the ids stand for all
FEW = 20


class CountChecks:
    """Counts frames with zero energies and forces, and remembers ids."""

    def __init__(self) -> None:
        self._energies = self._zero_energies = self._forces = self._zero_forces = 0
        self._first_zero = ""
        self._ids = GroupSample(CAPACITY)
        self._frames = 0

    def add(self, summaries: FrameSummaries) -> None:
        """Take the summaries of further frames."""
        s = summaries
        self._frames += len(s)
        zero = s.energy == 0
        if zero.any() and not self._first_zero:
            self._first_zero = s.keys[int(np.argmax(zero))]
        self._energies += int(np.isfinite(s.energy).sum())
        self._zero_energies += int(zero.sum())
        several = (s.natoms > 1) & np.isfinite(s.max_force)
        self._forces += int(several.sum())
        self._zero_forces += int((s.max_force[several] == 0).sum())
        names = np.array([name_number(key) for key in s.keys], dtype=np.int64)
        self._ids.add(names, {"key": np.array(s.keys, dtype=object), "material": s.materials})

    def findings(self) -> list[Finding]:
        """Zero energies, zero forces, ids that come twice."""
        return [*self._zeros(), *self._twice()]

    def _zeros(self) -> list[Finding]:
        found = []
        if self._zero_energies:
            message = (
                f"{self._zero_energies} of {self._energies} energies are exactly 0 (first in {self._first_zero}): a "
                "missing energy was written as zero; name the right key with --key energy=… or leave these frames out"
            )
            details = {"frames": self._zero_energies, "of": self._energies, "first_id": self._first_zero}
            found.append(Finding("zero_energies", "error", message, details))
        if self._forces >= FEW and self._zero_forces > 0.9 * self._forces:
            message = (
                f"all forces are exactly 0 in {self._zero_forces} of {self._forces} frames: missing forces were "
                "written as zero, unless these are ideal crystals; name the right key with --key forces=…"
            )
            found.append(Finding("zero_forces", "warning", message, {"frames": self._zero_forces, "of": self._forces}))
        return found

    def _twice(self) -> list[Finding]:
        rows = self._ids.rows()
        pairs = list(zip(rows.get("key", ()), rows.get("material", ()), strict=True))
        again = len(pairs) - len(set(pairs))
        if not again:
            return []
        seen: set[tuple[str, int]] = set()
        example = next(pair[0] for pair in pairs if pair in seen or seen.add(pair))  # type: ignore[func-returns-value]
        message = (
            f"{again} of {len(pairs)} ids{'' if len(pairs) == self._frames else ' looked at'} come twice in one "
            f"material (such as {example}); where the content differs, the second goes to quarantine"
        )
        return [Finding("ids_twice", "warning", message, {"ids": again, "of": len(pairs), "example": str(example)})]
