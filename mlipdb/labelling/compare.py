"""Teacher against source: a quick look that shows a wrong unit or convention at once."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from mlipdb.database import Database
from mlipdb.structures import Structure


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far a teacher is from the labels that came with the structures.

    energy_rms is of the total energy per atom as stored, aligned_energy_rms after the best constant per element is
    taken off (None when there are not more structures than elements); both in eV/atom. force_mae is per component in
    eV/Å, None without forces in the source.
    """

    structures: int
    energy_rms: float
    aligned_energy_rms: float | None
    force_mae: float | None


def compare_with_source(
    db: Database, method_id: int, *, ids: Int64[np.ndarray, " structures"], most: int = 500
) -> Comparison | None:
    """Compare a method with the sources' own labels on at most so many structures; None where none has both."""
    chosen = ids[np.linspace(0, len(ids) - 1, min(most, len(ids))).astype(int)] if len(ids) else ids
    structures, differences, force_errors = [], [], []
    pairs = zip(db.read(chosen), db.read(chosen, method_id=method_id), strict=True)
    for (structure, source), (_, taught) in pairs:
        if source is None or taught is None:
            continue
        if source.energy_uncorrected is None or taught.energy_uncorrected is None:
            continue
        structures.append(structure)
        differences.append((taught.energy_uncorrected - source.energy_uncorrected) / len(structure))
        if source.forces is not None and taught.forces is not None:
            force_errors.append(np.abs(taught.forces - source.forces).ravel())
    if not structures:
        return None
    per_atom = np.array(differences)
    return Comparison(
        structures=len(structures),
        energy_rms=_rms(per_atom),
        aligned_energy_rms=_aligned_rms(structures, per_atom),
        force_mae=float(np.concatenate(force_errors).mean()) if force_errors else None,
    )


def _aligned_rms(structures: list[Structure], differences: Float64[np.ndarray, " structures"]) -> float | None:
    """The rms that is left after a least-squares fit of the differences per atom by element fractions."""
    elements = sorted({number for structure in structures for number in structure.composition})
    if len(structures) <= len(elements):
        return None
    fractions = np.array(
        [[structure.composition.get(number, 0) / len(structure) for number in elements] for structure in structures]
    )
    constants = np.linalg.lstsq(fractions, differences, rcond=None)[0]
    return _rms(differences - fractions @ constants)


def _rms(values: Float64[np.ndarray, " values"]) -> float:
    return float(np.sqrt(np.square(values).mean()))
