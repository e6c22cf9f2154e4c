"""kill -9 while labels are being made and stored: nothing is lost that was stored, nothing is stored twice."""

import random

import numpy as np
from sqlalchemy import select

import mlipdb
from mlipdb.catalog import LabelRow
from mlipdb.labelling import BatchLimits, Flush, LabelOptions, label
from mlipdb.labels import label_hash
from mlipdb.records import NewStructure
from mlipdb.testing.kill import run_and_kill
from mlipdb.testing.potential import PairPotential
from mlipdb.testing.teachers import crystal, molecule

PROGRAM = """
import sys, mlipdb
from mlipdb.labelling import BatchLimits, Flush, LabelOptions, label
from mlipdb.testing.potential import PairPotential
db = mlipdb.open(sys.argv[1])
print("ready", flush=True)
label(db, PairPotential(), ids=db.query("all").ids, hessian_rows=int(sys.argv[2]),
      options=LabelOptions(limits=BatchLimits(structures=2), flush=Flush(records=4)))
"""


def many(path, count):
    """A database of slightly different crystals and molecules."""
    db, rng = mlipdb.create(path), np.random.default_rng(2)
    source = db.open_source("made", reader="none", uri="made in the test")
    records = []
    for key in range(count):
        structure = (crystal, molecule)[key % 2]()
        structure.positions[:] += rng.normal(scale=0.05, size=structure.positions.shape)
        records.append(NewStructure(structure=structure, label=None, external_id=str(key), material=str(key)))
    db.append(records, source_id=source)
    return db


def test_a_killed_run_is_continued_without_loss_or_repetition(tmp_path):
    db, rng = many(tmp_path / "db", 300), random.Random(1)
    killed, counts = 0, []
    for rows in (1, 1, 1, 3, 3):
        killed += run_and_kill(["-c", PROGRAM, str(db.path), str(rows)], after=rng.uniform(0, 0.5), ready="ready")
        counts.append(stored(db))
    assert killed
    assert counts == sorted(counts)
    ids = db.query("all").ids
    report = label(
        db,
        PairPotential(),
        ids=ids,
        hessian_rows=3,
        options=LabelOptions(limits=BatchLimits(structures=50), flush=Flush()),
    )
    assert report.labelled + report.already == 300
    parts = sorted(stored_parts(db))
    assert len(parts) == len(set(parts))
    assert not db.verify(deep=True).problems
    db.gc()
    assert db.verify(deep=True).orphans == ()
    check_against_uninterrupted(db, mlipdb.create(tmp_path / "exact"))


def stored(db):
    return len(stored_parts(db))


def stored_parts(db):
    with db.session() as session:
        columns = (LabelRow.structure_id, LabelRow.method_id, LabelRow.part)
        return [tuple(row) for row in session.execute(select(*columns))]


def check_against_uninterrupted(db, exact):
    """The labels are those that the teacher gives when nobody disturbs it."""
    source = exact.open_source("made", reader="none", uri="made in the test")
    records = [
        NewStructure(structure=structure, label=None, external_id=str(key), material=str(key))
        for key, structure in enumerate(db.query("all"))
    ]
    ids = exact.append(records, source_id=source)
    label(exact, PairPotential(), ids=np.array(ids), hessian_rows=3)
    for key in ids:
        (found,), (expected,) = db.labels(key), exact.labels(key)
        assert label_hash(found) == label_hash(expected)
