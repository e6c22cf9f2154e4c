import numpy as np
import pytest

import mlipdb
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel, NewStructure, RejectedRecord
from mlipdb.testing.samples import rock_salt, water

# Six rock salts NaCl, KCl and KBr of two frames each, and a water molecule. DFT: energies -1, -2, … eV; the teacher is
# 0.5 eV (0.25 eV/atom) above it on the first four and fails on the fifth.
PAIRS = [(11, 17), (19, 17), (19, 35)]


def records():
    found = []
    for number in range(6):
        structure = rock_salt(*PAIRS[number // 2], a=5.0 + 0.1 * number)
        forces = np.array([[0.2 * number, 0.0, 0.0], [-0.2 * number, 0.0, 0.0]])
        label = Label(energy_uncorrected=-1.0 - number, forces=forces, stress=np.zeros((3, 3)), band_gap=1.0)
        record = {"external_id": f"frame-{number}", "material": f"material-{number // 2}", "row": number}
        tags = {"split": "train" if number < 4 else "test"}
        found.append(NewStructure(structure=structure, label=label, tags=tags, **record))
    found.append(NewStructure(structure=water(), label=None, external_id="water", material="water"))
    return found


@pytest.fixture(scope="session")
def fill():
    """Puts the structures and labels into any database."""
    return _fill


def _fill(db):
    """The records, and a teacher's labels of some of them."""
    facts = {"licence": "CC-BY-4.0", "citation": "A. Author, 2024", "version": "1"}
    source = db.open_source("made", reader="extxyz", uri="made.xyz", sha256="a" * 64, **facts)
    dft = db.method_id(Method(kind="dft", name="PBE/VASP", code="VASP", functional="PBE"))
    rejected = [RejectedRecord(key="bad", location="frame 7", reason="no atoms")]
    ids = db.append(records(), source_id=source, method_id=dft, duplicates=3, rejected=rejected)
    db.close_source(source, state="complete")
    facts = {"weights_sha256": "b" * 64, "package": "toy", "package_version": "1.2"}
    teacher = db.method_id(Method(kind="teacher", name="toy", **facts))
    labels = []
    for identity in ids[:4]:
        taught = db.labels(identity)[0]
        label = Label(energy_uncorrected=taught.energy_uncorrected + 0.5, forces=taught.forces + 0.1)
        labels.append(NewLabel(structure_id=identity, part=0, label=label))
    labels.append(NewLabel(structure_id=ids[4], part=0, label=None, reason="K is not known to it"))
    db.append_labels(labels, method_id=teacher)
    rows = Label(hessian_row_numbers=np.array([1, 4], dtype=np.int32), hessian_rows=np.ones((2, 2, 3)))
    db.append_labels([NewLabel(structure_id=ids[0], part=1, label=rows)], method_id=teacher)


@pytest.fixture
def database(tmp_path):
    """Seven structures in SQLite."""
    db = mlipdb.create(tmp_path / "db")
    _fill(db)
    yield db
    db.close()
