"""Frames made by hand from a known potential, and real ones from shared/data, for the checks."""

import bz2
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlipdb.ingest import Frame
from mlipdb.ingest.checks import Finding, SourceChecks, summarise
from mlipdb.ingest.readers.extxyz import ExtxyzReader
from mlipdb.ingest.readers.mptrj import MptrjReader
from mlipdb.ingest.stream import FileDigest
from mlipdb.labels import Label
from mlipdb.structures import ATOMIC_NUMBERS, make_structure

KBAR = 1 / 1602.1766340


@pytest.fixture(scope="session")
def check() -> Callable[..., dict[str, Finding]]:
    """What the checks say of frames, by the name of the check."""

    def run(frames: Sequence[Frame], *, chunk: int = 500) -> dict[str, Finding]:
        checks = SourceChecks()
        for start in range(0, len(frames), chunk):
            checks.add(summarise(frames[start : start + chunk]))
        return {finding.check: finding for finding in checks.findings()}

    return run


@pytest.fixture(scope="session")
def relabel() -> Callable[..., list[Frame]]:
    """Frames with changed labels; the change is a function of the frame."""

    def change_all(frames: Sequence[Frame], change: Callable[[Frame], dict[str, Any]]) -> list[Frame]:
        return [replace(frame, label=replace(frame.label, **change(frame))) for frame in frames]

    return change_all


def spring_crystal(index: int, *, rng: np.random.Generator, e0: float = -3.0) -> Frame:
    """Two atoms in a strained cubic cell; springs to ideal fractional places and of the volume, so all is exact."""
    cell = 4.0 * (np.eye(3) + 0.02 * symmetric(rng))
    move = rng.normal(scale=0.03, size=(2, 3))
    move -= move.mean(axis=0)
    numbers = [(11, 17), (12, 8), (19, 9), (3, 35)][index // 25 % 4]
    volume = np.linalg.det(cell)
    stretch = volume / 64.0 - 1
    forces = -8.0 * move  # energy 4 |move|² of the displacements in Å
    strain_energy = 0.5 * 40.0 * stretch**2
    pressure_part = 40.0 * stretch / 64.0  # dE/dV
    energy = 2 * e0 + sum(numbers) * -0.01 + 4.0 * float(np.square(move).sum()) + strain_energy
    # With the fractional places a displacement moves, too: dE/dstrain = 8 move ⊗ move.
    virial = -(forces.T @ move) / volume
    structure = make_structure(
        numbers, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]) @ cell + move, cell=cell, pbc=(True, True, True)
    )
    label = Label(energy_uncorrected=energy, forces=forces, stress=pressure_part * np.eye(3) + virial)
    name = f"{index // 25}-{index}"
    return Frame(
        structure=structure, label=label, external_id=name, material=f"m{index // 25}", location=f"frame {index}"
    )


def symmetric(rng: np.random.Generator) -> np.ndarray:
    matrix = rng.normal(size=(3, 3))
    return (matrix + matrix.T) / 2


@pytest.fixture
def crystals() -> list[Frame]:
    """Two hundred frames of eight materials whose energies, forces and stress belong together."""
    rng = np.random.default_rng(0)
    return [spring_crystal(index, rng=rng) for index in range(200)]


def read(reader: Any, path: Path) -> list[Frame]:
    options = {"keys": {}, "units": {}, "source": "test", "digest": FileDigest(), "file": path.name}
    return [item for item in reader.frames(path, options) if isinstance(item, Frame)]


@pytest.fixture(scope="module")
def mptrj(shared_data: Path) -> Callable[[str], list[Frame]]:
    """Frames of a file in the layout of MPtrj."""
    return lambda name: read(MptrjReader(), shared_data / name)


@pytest.fixture(scope="module")
def extxyz(shared_data: Path) -> Callable[[str], list[Frame]]:
    """Frames of an extended XYZ file."""
    return lambda name: read(ExtxyzReader(), shared_data / name)


@pytest.fixture(scope="module")
def alexandria(shared_data: Path) -> Callable[[str], list[Frame]]:
    """Frames of P000 or P050, read by hand so that this does not rest on the reader."""

    def load(name: str) -> list[Frame]:
        with bz2.open(shared_data / "alexandria-ml-peg" / f"{name}.json.bz2") as file:
            return [alexandria_frame(entry, suffix=name) for entry in json.load(file)["entries"]]

    return load


def alexandria_frame(entry: dict[str, Any], *, suffix: str) -> Frame:
    sites = entry["structure"]["sites"]
    name = entry["data"]["mat_id"]
    return Frame(
        structure=make_structure(
            [ATOMIC_NUMBERS[site["species"][0]["element"]] for site in sites],
            [site["xyz"] for site in sites],
            cell=entry["structure"]["lattice"]["matrix"],
            pbc=(True, True, True),
        ),
        label=Label(
            energy_uncorrected=entry["energy"],
            forces=np.array([site["properties"]["forces"] for site in sites], dtype=np.float64),
            stress=-KBAR * np.array(entry["data"]["stress"]),
        ),
        external_id=f"{name}-{suffix}",
        material=name,
        location="",
    )


@pytest.fixture(scope="module")
def oxides(shared_data: Path) -> Callable[[float], list[Frame]]:
    """Equations of state of 30 oxides with four functionals; the argument multiplies the stress that the file has."""
    path = shared_data / "fairchem" / "oxides_4functionals_supporting-information.json.gz"

    def load(factor: float) -> list[Frame]:
        with gzip.open(path) as file:
            tree = json.load(file)
        return [
            oxide_frame(point, name=f"{oxide}-{polymorph}-{functional}", place=place, factor=factor)
            for oxide, polymorphs in tree.items()
            for polymorph, functionals in polymorphs.items()
            for functional, content in functionals.items()
            for place, point in enumerate(content["EOS"]["calculations"])
        ]

    return load


def oxide_frame(point: dict[str, Any], *, name: str, place: int, factor: float) -> Frame:
    atoms, data = point["atoms"], point["data"]
    xx, yy, zz, yz, xz, xy = data["stress"]
    stress = factor * np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    numbers = [ATOMIC_NUMBERS[symbol] for symbol in atoms["symbols"]]
    structure = make_structure(numbers, atoms["positions"], cell=atoms["cell"], pbc=(True, True, True))
    label = Label(energy_uncorrected=data["total_energy"], forces=np.array(data["forces"], float), stress=stress)
    return Frame(structure=structure, label=label, external_id=f"{name}-{place}", material=name, location="")
