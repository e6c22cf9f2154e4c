"""Do energies change as forces and stress say? The factor that makes them agree names a wrong sign or unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from mlipdb.ingest.checks.finding import Finding
from mlipdb.ingest.checks.groups import VolumeSample, quiet, volume_pairs
from mlipdb.ingest.checks.samples import RowSample
from mlipdb.ingest.checks.summaries import FrameSummaries
from mlipdb.units import BOHR, HARTREE, KBAR_PER_EV_PER_CUBIC_ANGSTROM, KCAL_PER_MOL

CAPACITY = 20_000  # pairs that are held
FEW = 8  # pairs that a verdict needs
SHARE = 0.15  # of them that must agree on a factor; the others may be noise
CLEARLY = 4  # times as many must agree on it as on the values as they are
AGREED = 0.2  # misfit; the ratio of the two sides is then between 2/3 and 3/2
SMALL = 5e-5  # eV per atom; smaller changes of energy are noise
GPA = KBAR_PER_EV_PER_CUBIC_ANGSTROM / 10

# true value over stored value: what the numbers are, and what to say at ingest. Signs come on top.
STRESS = {
    1.0: ("of the opposite sign", "Turn its sign (VASP's own, in kbar, is --unit 'stress=kbar(VASP)')"),
    0.1: ("kbar that was read as GPa", "Ingest again with --unit stress=kbar"),
    10.0: ("GPa that was read as kbar", "Ingest again with --unit stress=GPa"),
    1 / GPA: ("GPa that was read as eV/Å³", "Ingest again with --unit stress=GPa"),
    0.1 / GPA: ("kbar that was read as eV/Å³", "Ingest again with --unit stress=kbar"),
    GPA: ("eV/Å³ that was read as GPa", "Ingest again with --unit stress=eV/Å³"),
    10 * GPA: ("eV/Å³ that was read as kbar", "Ingest again with --unit stress=eV/Å³"),
}
FORCES = {
    1.0: ("gradients, which are forces with the opposite sign", "Turn their sign in the file"),
    HARTREE / BOHR: ("hartree/bohr that was read as eV/Å", "Ingest again with --unit forces=hartree/bohr"),
    KCAL_PER_MOL: ("kcal/mol/Å that was read as eV/Å", "Ingest again with --unit forces=kcal/mol/Å"),
}
ENERGY = {
    1 / HARTREE: ("hartree that was read as eV", "Ingest again with --unit energy=hartree"),
    1 / KCAL_PER_MOL: ("kcal/mol that was read as eV", "Ingest again with --unit energy=kcal/mol"),
}


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Differences of energy with the work of forces and of stress, all in eV per atom."""

    energy: Float64[np.ndarray, " pairs"]
    force_work: Float64[np.ndarray, " pairs"]
    stress_work: Float64[np.ndarray, " pairs"]

    def misfit(self, forces: float, stress: float) -> Float64[np.ndarray, " pairs"]:
        """Between 0 (energies change as forces and stress times these factors say) and 1 (not at all)."""
        parts = forces * self.force_work, stress * self.stress_work
        return np.asarray(
            np.abs(self.energy - sum(parts)) / (np.abs(self.energy) + np.abs(parts[0]) + np.abs(parts[1]))
        )


class WorkChecks:
    """Compares energies of near frames with their forces and stress: consecutive ones, and those of one composition."""

    def __init__(self, volumes: VolumeSample) -> None:
        self._volumes = volumes
        self._sample = RowSample(CAPACITY, seed=2)

    def add(self, summaries: FrameSummaries) -> None:
        """Take the pairs of consecutive frames."""
        pairs = summaries.pairs
        if len(pairs):
            names = ("energy", "force_work", "stress_work")
            self._sample.add({name: getattr(pairs, name) for name in names})

    def findings(self) -> list[Finding]:
        """A wrong sign or unit of stress or forces, or a wrong unit of energies."""
        pairs = self._pairs()
        if len(pairs.energy) < FEW:
            return []
        best = forces, stress = _best(pairs)
        if forces == stress and forces in ENERGY:
            told = np.ones(len(pairs.energy), dtype=bool)
            return _verdict(ENERGY_QUESTION, pairs, best=best, otherwise=(1.0, 1.0), told=told)
        by_forces, by_stress = np.abs(forces * pairs.force_work), np.abs(stress * pairs.stress_work)
        told, other = by_stress > 2 * by_forces, by_forces > 2 * by_stress
        return [
            *_verdict(STRESS_QUESTION, pairs, best=best, otherwise=(forces, 1.0), told=told),
            *_verdict(FORCE_QUESTION, pairs, best=best, otherwise=(1.0, stress), told=other),
        ]

    def _pairs(self) -> _Pairs:
        rows, frames = self._sample.rows(), self._volumes.rows()
        near = volume_pairs(frames)
        near = near.where(quiet(frames, near) & (np.abs(near.swelling) < 0.1) & (np.abs(near.swelling) > 1e-3))
        blank = np.zeros(0)
        if near.same_material.sum() >= FEW:
            near = near.where(near.same_material)
        energy = np.concatenate([rows.get("energy", blank), near.energy])
        force = np.concatenate([rows.get("force_work", blank), np.zeros(len(near))])
        stress = np.concatenate([rows.get("stress_work", blank), near.work])
        told = np.isfinite(energy + force + stress) & (np.abs(energy) > SMALL) & ((force != 0) | (stress != 0))
        return _Pairs(energy[told], force[told], stress[told])


def _best(pairs: _Pairs) -> tuple[float, float]:
    """The factors of forces and stress with which most pairs agree; those that change nothing win a draw."""
    candidates = [(1.0, 1.0)]
    candidates += [(a * s, b * t) for a in FORCES for s in (1, -1) for b in STRESS for t in (1, -1)]
    candidates += [(factor, factor) for factor in ENERGY]
    votes = [int((pairs.misfit(*factors) < AGREED).sum()) for factors in candidates]
    return candidates[int(np.argmax(votes))]


@dataclass(frozen=True)
class _Question:
    """What a check asks: about which quantity, with which factors, and the verb that goes with it."""

    check: str
    quantity: str
    verb: str
    names: Mapping[float, tuple[str, str]]


STRESS_QUESTION = _Question("stress_sign_or_unit", "the stress", "is", STRESS)
FORCE_QUESTION = _Question("force_sign_or_unit", "the forces", "are", FORCES)
ENERGY_QUESTION = _Question("energy_unit", "the energies", "are", ENERGY)


def _verdict(
    question: _Question,
    pairs: _Pairs,
    *,
    best: tuple[float, float],
    otherwise: tuple[float, float],
    told: Bool[np.ndarray, " pairs"],
) -> list[Finding]:
    """A finding where the best factors differ from the others and the pairs that can tell agree on them."""
    agree, as_stored = (int((pairs.misfit(*factors)[told] < AGREED).sum()) for factors in (best, otherwise))
    if best == otherwise or agree < max(FEW, SHARE * told.sum(), CLEARLY * as_stored):
        return []
    factor = best[1] if question is STRESS_QUESTION else best[0]
    name, step = question.names[abs(factor)]
    if factor < 0 and abs(factor) != 1:
        name += ", and of the opposite sign"
        step = step.replace("stress=kbar", "'stress=kbar(VASP)'")
    message = (
        f"{question.quantity} and the differences of energy do not go together: in {agree} of {int(told.sum())} pairs "
        f"of near frames they would with {factor:.4g} times the values, in {as_stored} as they are. Probably "
        f"{question.quantity} {question.verb} {name}. {step}"
    )
    details: dict[str, Any] = {"pairs": int(told.sum()), "agree": agree, "agree_as_stored": as_stored, "factor": factor}
    return [Finding(question.check, "error", message, details)]
