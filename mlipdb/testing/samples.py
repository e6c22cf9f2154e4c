"""Tiny structures and records for tests, ours and plug-in authors'."""

import numpy as np

from mlipdb.labels import Label
from mlipdb.records import NewStructure, SpaceGroup
from mlipdb.structures import Structure, make_structure


def rock_salt(first: int = 11, second: int = 17, *, a: float = 5.64, shift: float = 0.0) -> Structure:
    """The two-atom primitive cell of a rock salt with lattice parameter a in Å; shift moves the first atom along x."""
    cell = a / 2 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    positions = np.array([[shift, 0.0, 0.0], [a / 2, a / 2, a / 2]])
    return make_structure([first, second], positions, cell=cell, pbc=(True, True, True))


def water() -> Structure:
    """A water molecule without a cell."""
    return make_structure([8, 1, 1], [[0.0, 0.0, 0.0], [0.9572, 0.0, 0.0], [-0.2399872, 0.92662721, 0.0]])


def harmonic_label(structure: Structure, *, seed: int = 0) -> Label:
    """A label with energy, forces and, where it is periodic, a symmetric stress: random but fixed by the seed."""
    rng = np.random.default_rng(seed)
    stress = rng.normal(size=(3, 3)) * 0.01
    return Label(
        energy_uncorrected=-3.0 * len(structure) + float(rng.normal()),
        forces=rng.normal(size=(len(structure), 3)),
        stress=(stress + stress.T) / 2 if all(structure.pbc) else None,
        band_gap=float(rng.uniform(0, 8)),
    )


def sample_records(count: int, *, start: int = 0, per_material: int = 3) -> list[NewStructure]:
    """Rock salts of varying elements and size with labels, a few frames to a material."""
    halogens, alkalis = (9, 17, 35, 53), (3, 11, 19, 37, 39)
    records = []
    for number in range(start, start + count):
        material = number // per_material
        structure = rock_salt(
            alkalis[material % 5], halogens[material % 4], a=4.0 + 0.01 * (number % 100), shift=0.001 * number
        )
        records.append(
            NewStructure(
                structure=structure,
                label=harmonic_label(structure, seed=number),
                external_id=f"frame-{number}",
                material=f"material-{material}",
                space_group=SpaceGroup(225, "Fm-3m"),
            )
        )
    return records
