"""Checks of single frames: numbers beyond what a sound calculation gives."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mlipdb.ingest.checks.finding import Finding
from mlipdb.ingest.checks.summaries import FrameSummaries

GPA = 160.2176634  # of one eV/Å³


@dataclass(frozen=True)
class Limit:
    """A number of a frame that should stay below a limit; tolerated is the share of frames that may pass it.

    text is the message: {count}, {total}, {worst} and {key} are filled in, {worst} scaled.
    """

    check: str
    severity: str
    value: Callable[[FrameSummaries], Float64[np.ndarray, " frames"]]
    limit: float
    tolerated: float
    text: str
    scale: float = 1.0


LIMITS = (
    Limit(
        "net_force",
        "warning",
        lambda s: s.net_force / s.natoms * (s.natoms > 1),
        1e-3,
        0.1,
        "forces do not sum to zero in {count} of {total} frames (limit 1 meV/Å per atom; worst {worst:.3g} meV/Å per "
        "atom in {key}): they were not converged, or were made in a field; train with care, forces carry this error",
        1e3,
    ),
    Limit(
        "net_force_large",
        "warning",
        lambda s: s.net_force / s.natoms * (s.natoms > 1),
        1e-2,
        0.0,
        "forces sum to far from zero in {count} of {total} frames (worst {worst:.3g} meV/Å per atom in {key}): rows "
        "are missing or in another order, or atoms were fixed; look at {key} in the source",
        1e3,
    ),
    Limit(
        "stress_symmetric",
        "error",
        lambda s: s.stress_asymmetry / np.maximum(s.stress_max, 1e-2),
        1e-2,
        0.0,
        "the stress is not symmetric in {count} of {total} frames (worst: entries that should be equal differ by "
        "{worst:.1%} of the largest in {key}): the order of its numbers is another than the reader takes; check the "
        "source's documentation (VASP prints XX YY ZZ XY YZ ZX, ASE and MatPES have xx yy zz yz xz xy)",
    ),
    Limit(
        "large_forces",
        "warning",
        lambda s: s.max_force,
        100.0,
        0.0,
        "{count} of {total} frames have a force above 100 eV/Å (worst {worst:.4g} eV/Å in {key}): atoms overlap or the "
        "unit is another; leave them out of a subset with `max_force<=100`, or give the unit with --unit forces=…",
    ),
    Limit(
        "large_stress",
        "warning",
        lambda s: s.stress_max,
        2.0,
        0.0,
        "{count} of {total} frames have a stress above 320 GPa (worst {worst:.4g} GPa in {key}): cells far from rest, "
        "or the unit is another (--unit stress=kbar)",
        GPA,
    ),
    Limit(
        "close_atoms",
        "warning",
        lambda s: 1 / np.maximum(s.closest, 1e-9),
        1 / 0.5,
        0.0,
        "atoms are closer than 0.5 Å in {count} of {total} frames whose distances were worked out (worst {worst:.3g} Å "
        "in {key}): overlapping atoms, or positions in another unit (fractional, nm, bohr: --unit positions=…)",
        -1.0,
    ),
    Limit(
        "dense_cells",
        "warning",
        lambda s: s.natoms / s.volume,
        1 / 2.0,
        0.0,
        "{count} of {total} frames have less than 2 Å³ per atom (worst {worst:.3g} Å³ in {key}): the cell is in "
        "another unit (--unit positions=…) or the atoms belong to another cell",
        -1.0,
    ),
)  # a negative scale: the message shows the reciprocal


class LimitChecks:
    """Counts frames beyond each limit and remembers the worst."""

    def __init__(self) -> None:
        self._seen = dict.fromkeys((limit.check for limit in LIMITS), 0)
        self._over = dict.fromkeys(self._seen, 0)
        self._worst: dict[str, tuple[float, str]] = {}

    def add(self, summaries: FrameSummaries) -> None:
        """Take the summaries of further frames."""
        for limit in LIMITS:
            values = limit.value(summaries)
            known = np.isfinite(values)
            if not known.any():
                continue
            place = int(np.nanargmax(np.where(known, values, -np.inf)))
            self._seen[limit.check] += int(known.sum())
            self._over[limit.check] += int((values[known] > limit.limit).sum())
            if values[place] > self._worst.get(limit.check, (-np.inf, ""))[0]:
                self._worst[limit.check] = (float(values[place]), summaries.keys[place])

    def findings(self) -> list[Finding]:
        """A finding for each limit that more than the tolerated share of frames is beyond."""
        passed = {limit.check: limit for limit in LIMITS if self._passed(limit)}
        if "net_force_large" in passed:  # says the same, more strongly
            passed.pop("net_force", None)
        return [self._finding(limit) for limit in passed.values()]

    def _passed(self, limit: Limit) -> bool:
        return self._over[limit.check] > limit.tolerated * self._seen[limit.check]

    def _finding(self, limit: Limit) -> Finding:
        value, key = self._worst[limit.check]
        shown = 1 / value if limit.scale < 0 else value * limit.scale
        count, total = self._over[limit.check], self._seen[limit.check]
        message = limit.text.format(count=count, total=total, worst=shown, key=key)
        details = {"frames": count, "of": total, "worst": shown, "worst_id": key, "limit": limit.limit}
        return Finding(limit.check.removesuffix("_large"), limit.severity, message, details)
