"""Print mlipdb/store/dictionary.py's bytes: a zstd dictionary trained on random records, the same each time.

    python scripts/train_dictionary.py

It was run once for record format 2, of which the dictionary is a part; another one would be another format.
"""

import base64
import textwrap

import numpy as np
import zstandard

from mlipdb.labels import Label
from mlipdb.store.codec import payloads
from mlipdb.structures import Structure, make_structure

KBAR = -1.0 / 1602.1766340
NAMES = ("energy_per_atom", "ef_per_atom", "e_per_atom_relaxed", "ef_per_atom_relaxed")


def random_pair(rng: np.random.Generator) -> tuple[Structure, Label]:
    """A crystal as relaxations have them: round fractions or Cartesian decimals, forces of any size."""
    natoms = int(np.clip(rng.lognormal(2.7, 0.9), 1, 200))
    numbers = np.sort(rng.choice(rng.integers(1, 90, rng.integers(1, 5)), natoms))
    style = rng.integers(4)
    cell = np.diag(rng.normal((natoms * 15) ** (1 / 3), 1, 3).clip(2.5)) + (style > 1) * rng.normal(0, 0.5, (3, 3))
    if rng.random() < 0.5:
        cell[np.triu_indices(3, 1)] = 0
    cell = np.round(cell, 8)
    fractions = rng.random((natoms, 3))
    special = rng.random((natoms, 3)) < (0.6 if style == 0 else 0.15)
    fractions[special] = rng.choice([0, 0.5, 0.25, 0.75, 1 / 3, 2 / 3], special.sum())
    a, b, c = np.round(fractions, 8).T[..., None]
    positions = a * cell[0] + b * cell[1] + c * cell[2]
    if style in (1, 3):
        positions = np.round(positions, 8)
    if style == 3:
        positions = (positions @ np.linalg.inv(cell)) @ cell
    charge = 0.0 if rng.random() < 0.5 else None
    structure = make_structure(numbers, positions, cell=cell, pbc=(True, True, True), charge=charge)
    return structure, random_label(rng, natoms, round_forces=style == 0)


def random_label(rng: np.random.Generator, natoms: int, *, round_forces: bool) -> Label:
    """Energies, forces, a stress from kbar, moments and numbers per atom."""
    forces = np.round(rng.laplace(0, 10 ** rng.uniform(-2.5, 0), (natoms, 3)), 8)
    if round_forces:
        forces[rng.random((natoms, 3)) < 0.5] = 0
    stress = np.round(rng.normal(0, 20, (3, 3)), 8)
    energy = round(float(rng.normal(-6, 2) * natoms), 8)
    values = (energy / natoms, rng.normal(-1, 1), energy / natoms - 0.1, rng.normal(-1, 1))
    return Label(
        energy_uncorrected=energy,
        energy_corrected=energy if rng.random() < 0.5 else round(energy - rng.random() * natoms, 8),
        band_gap=round(max(0.0, rng.normal(0, 2)), 4),
        forces=forces,
        stress=np.round((stress + stress.T) / 2, 8) * KBAR,
        magmoms=np.round(rng.laplace(0, 0.3, natoms), 3) if rng.random() < 0.3 else None,
        properties=dict(zip(NAMES, values, strict=True)) if rng.random() < 0.5 else {},
    )


def main() -> None:
    """Train on six thousand and print."""
    rng = np.random.default_rng(0)
    data = zstandard.train_dictionary(1024, payloads([random_pair(rng) for _ in range(6000)]), dict_id=1)
    print("\n".join(textwrap.wrap(base64.b85encode(data.as_bytes()).decode(), 116)))


if __name__ == "__main__":
    main()
