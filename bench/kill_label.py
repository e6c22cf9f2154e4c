"""kill -9 `mlipdb label` at random moments, many times, and see that nothing is lost and nothing doubled.

    python bench/kill_label.py DATABASE --weights FILE.nqx [--subset Y] [--kills 20] [--seed 0] [--seconds 3]

The database is copied. Each killed run goes on where the last one stopped, asking for one Hessian row more whenever
all is done. In the end every structure has the label of an undisturbed run, with each row once.
"""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from sqlalchemy import select

import mlipdb
from mlipdb.catalog import LabelRow
from mlipdb.labelling import Flush, LabelOptions, label, load_teacher
from mlipdb.testing.kill import run_and_kill

MOST = 4


def child(database, weights, subset, rows):
    db, teacher = mlipdb.open(database), load_teacher("nequix", weights=Path(weights))
    ids = db.query(subset).ids
    label(db, teacher, ids=ids[:2], hessian_rows=rows)  # what compiles the programs
    print("begin", flush=True)
    label(db, teacher, ids=ids, hessian_rows=rows, options=LabelOptions(flush=Flush(records=8)))


def rows_of(db):
    with db.session() as session:
        query = select(LabelRow.structure_id, LabelRow.method_id, LabelRow.part).where(LabelRow.status == "done")
        return [tuple(row) for row in session.execute(query)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--subset", default="all")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0, help="the latest moment of a kill after the start")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child is not None:
        child(chosen.database, chosen.weights, chosen.subset, chosen.child)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return compare(chosen, Path(scratch))


def compare(chosen, scratch):
    for name in ("killed", "whole"):
        shutil.copytree(chosen.database, scratch / name)
    db, moments = mlipdb.open(scratch / "killed"), random.Random(chosen.seed)
    killed, rows, stored = 0, 1, rows_of(db)
    while killed < chosen.kills:
        words = [
            __file__,
            str(db.path),
            "--weights",
            str(chosen.weights),
            "--subset",
            chosen.subset,
            "--child",
            str(rows),
        ]
        if run_and_kill(words, after=moments.uniform(0.0, chosen.seconds), ready="begin"):
            killed += 1
        elif rows == MOST:
            break
        else:
            rows += 1
        found = rows_of(db)
        assert set(stored) <= set(found), "a stored label is gone"
        stored = found
    whole, teacher = mlipdb.open(scratch / "whole"), load_teacher("nequix", weights=chosen.weights)
    ids = db.query(chosen.subset).ids
    reports = [label(one, teacher, ids=ids, hessian_rows=MOST) for one in (db, whole)]
    check(db, whole, ids, methods=[report.method_id for report in reports])
    print(
        f"{killed} kills, {len(ids)} structures: every label equals that of an undisturbed run, every row is there once"
    )
    return 0


def check(db, whole, ids, *, methods):
    assert len(rows_of(db)) == len(set(rows_of(db)))
    pairs = (one.read(ids, method_id=method) for one, method in zip((db, whole), methods, strict=True))
    for (structure, found), (_, expected) in zip(*pairs, strict=True):
        assert found.hessian_row_numbers.tolist() == expected.hessian_row_numbers.tolist()
        assert len(set(found.hessian_row_numbers.tolist())) == min(MOST, 3 * len(structure))
        # another batch, another rounding: float32
        for name in ("atomic_energies", "forces", "hessian_rows"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-3, err_msg=name)
    report = db.verify(deep=True)
    assert report.ok, report.problems
    db.gc()
    assert not db.verify().orphans


if __name__ == "__main__":
    sys.exit(main())
