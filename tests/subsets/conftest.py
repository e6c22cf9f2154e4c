import numpy as np
import pytest

import mlipdb
from mlipdb.labels import Label, Method
from mlipdb.records import NewStructure, SpaceGroup
from mlipdb.structures import make_structure

ELEMENTS = [[39, 8], [26, 8], [3, 39], [8, 8]]


def frames(start, stop):
    """Frames of materials of four frames each; the elements go by material."""
    for number in range(start, stop):
        material = number // 4
        structure = make_structure(
            ELEMENTS[material % len(ELEMENTS)],
            np.random.default_rng(number).random((2, 3)) * 4,
            cell=4 * np.eye(3),
            pbc=(True, True, True),
        )
        label = Label(energy_uncorrected=-float(number), band_gap=number / 100, forces=np.zeros((2, 3)))
        yield NewStructure(
            structure=structure,
            label=label,
            external_id=f"frame-{number}",
            material=f"mp-{material}",
            space_group=SpaceGroup(221, "Pm-3m"),
        )


@pytest.fixture
def append():
    """Appends frames start to stop of the same made-up source to a database."""

    def call(db, start, stop):
        source = db.open_source("made", reader="none", uri="made in the test")
        return db.append(
            list(frames(start, stop)), source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE"))
        )

    return call


@pytest.fixture
def db(tmp_path, append):
    """400 frames of 100 materials."""
    database = mlipdb.create(tmp_path / "db")
    append(database, 0, 400)
    yield database
    database.close()
