"""A small database to train on: crystals whose labels are a potential known exactly, with a teacher's beside them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlipdb.database import Database, create_database
from mlipdb.labelling.teacher import LabelRequest
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel, NewStructure
from mlipdb.structures import Structure, make_structure
from mlipdb.subsets.subset import freeze
from mlipdb.testing.potential import PairPotential
from mlipdb.trainers.models.nequix import NequixConfig

OXYGEN_SHIFT = 0.5  # eV per oxygen atom that the labels have more than the teacher: another convention
TINY = (
    "model.cutoff=3.0",
    "model.hidden_irreps='4x0e'",
    "model.lmax=0",
    "model.n_layers=1",
    "model.radial_basis_size=4",
    "model.radial_mlp_size=4",
    "model.radial_mlp_layers=1",
    "batch.graphs=4",
    "epochs=2",
    "checkpoint.every_steps=2",
    "data.threads=1",
)  # over the recipe nano: a student that compiles in seconds
_SMALLEST = ("cutoff=3.0", "hidden_irreps='2x0e'", "lmax=0", "n_layers=1", "radial_basis_size=2", "radial_mlp_size=2")
SMALLEST = (*(word for setting in _SMALLEST for word in ("--set", f"model.{setting}")), "--set", "epochs=1")
ELEMENTS = ((1, 8), (1, 6), (6, 8))


def tiny_nequix(atomic_numbers: tuple[int, ...], e0: tuple[float, ...], **settings: Any) -> NequixConfig:
    """A Nequix of two layers with scalars and vectors, which compiles in seconds; its cutoff is 3 Å."""
    sizes = {"hidden_irreps": "8x0e + 4x1o", "lmax": 1, "n_layers": 2, "cutoff": 3.0}
    radial = {"radial_basis_size": 4, "radial_mlp_size": 8, "radial_mlp_layers": 1}
    return NequixConfig(atomic_numbers=atomic_numbers, e0=e0, **{**sizes, **radial, **settings})


DFT = Method(kind="dft", name="toy-dft")


def training_database(path: Path, *, structures: int = 24, rows: int = 2, dft: Method = DFT) -> Database:
    """Crystals of H, C and O in three-frame materials, frozen as the subset ``toy`` (60/20/20 by material).

    Labels, by the method dft, are those of PairPotential plus OXYGEN_SHIFT for each oxygen; the method
    ``pair-potential`` is the teacher, with atomic energies and Hessian rows of every structure.
    """
    db = create_database(path)
    source = db.open_source("toy", reader="none", uri="made by mlipdb.testing")
    teacher = PairPotential(cutoff=3.0)
    made = [_crystal(number) for number in range(structures)]
    numbers = [np.arange(rows, dtype=np.int32)] * structures
    taught = teacher.label(made, LabelRequest(base=True, hessian_row_numbers=numbers))
    records = [
        NewStructure(structure=structure, label=_label(structure, label), external_id=f"{i}", material=f"m{i // 3}")
        for i, (structure, label) in enumerate(zip(made, taught, strict=True))
    ]
    ids = db.append(records, source_id=source, method_id=db.method_id(dft))
    db.close_source(source, state="complete")
    labels = [NewLabel(structure_id=i, part=0, label=label) for i, label in zip(ids, taught, strict=True)]
    db.append_labels(labels, method_id=db.method_id(teacher.info.method()))
    freeze(db, "toy", filter="all", fractions=(60, 20, 20), seed=1)
    return db


def _crystal(number: int) -> Structure:
    """Two atoms (four in every fifth) in a cube of about 2.4 Å, displaced at random but fixed by the number."""
    generator = np.random.default_rng(number)
    edge = 2.3 + 0.02 * (number // 3)
    positions = np.array([[0.0] * 3, [edge / 2] * 3]) + generator.normal(0.0, 0.1, (2, 3))
    elements = list(ELEMENTS[number // 3 % 3])
    cell = edge * np.eye(3)
    if number % 5 == 4:
        positions, elements = np.concatenate([positions, positions + np.array([edge, 0.0, 0.0])]), elements * 2
        cell = cell * np.array([[2.0], [1.0], [1.0]])
    return make_structure(elements, positions, cell=cell, pbc=(True, True, True))


def _label(structure: Structure, taught: Label) -> Label:
    shift = OXYGEN_SHIFT * structure.composition.get(8, 0)
    return replace(
        taught,
        energy_uncorrected=(taught.energy_uncorrected or 0.0) + shift,
        atomic_energies=None,
        atomic_energies_include_e0=None,
        hessian_row_numbers=None,
        hessian_rows=None,
    )


class Stopper:
    """A reporter that interrupts the training after so many steps, as Ctrl-C would."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def say(self, text: str) -> None:
        """Not told."""

    def step(self, progress: object) -> None:
        """Count down."""
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt

    def epoch(self, end: object) -> None:
        """Not told."""

    def close(self) -> None:
        """Nothing to close."""
