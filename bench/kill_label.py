"""kill -9 `mlipdb label` at random moments, many times, and see that nothing is lost and nothing doubled.

    python bench/kill_label.py DATABASE --weights FILE.nqx [--subset Y] [--kills 20] [--seed 0] [--seconds 3]
    python bench/kill_label.py DATABASE --weights FILE.nqx --workers 2 --kills 50

With --workers the labels are made by so many processes, and every other kill is of one of them, not of the submitter.
The database is copied. Each killed run goes on where the last one stopped, asking for one Hessian row more whenever
all is done. In the end every structure has the label of an undisturbed run, with each row once.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from sqlalchemy import select

import mlipdb
from mlipdb.catalog import LabelRow
from mlipdb.labelling import Flush, LabelOptions, NamedTeacher, TeacherOptions, drop_labels, label
from mlipdb.labelling.process_pool import ProcessPool
from mlipdb.labelling.unit import introduce
from mlipdb.testing.kill import run_and_kill

MOST = 4


def child(database, weights, subset, rows):
    db, teacher = mlipdb.open(database), named(weights)()
    ids = db.query(subset).ids
    label(db, teacher, ids=ids[:2], hessian_rows=rows)  # what compiles the programs
    print("begin", flush=True)
    label(db, teacher, ids=ids, hessian_rows=rows, options=LabelOptions(flush=Flush(records=8)))


def child_with_workers(database, weights, subset, rows, *, workers, killed):
    """Label with workers, and kill one of them so many seconds after the start; how many were killed goes to stdout."""
    db = mlipdb.open(database)
    ids = db.query(subset).ids
    options = LabelOptions(flush=Flush(records=8), workers=workers)
    with ProcessPool(workers) as pool:
        pool.submit(introduce, named(weights)).result()  # what loads the teacher and compiles nothing yet
        print("begin", flush=True)
        if killed is not None:
            threading.Thread(target=kill_one, args=(pool, killed), daemon=True).start()
        label(db, named(weights), ids=ids, hessian_rows=rows, executor=pool, options=options)


def kill_one(pool, after):
    time.sleep(after)
    if pool.pids:
        os.kill(pool.pids[0], signal.SIGKILL)
        print("killed a worker", flush=True)


def named(weights):
    return NamedTeacher(name="nequix", options=TeacherOptions(weights=Path(weights)))


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
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kill-worker", type=float, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child is not None:
        words = (chosen.database, chosen.weights, chosen.subset, chosen.child)
        if chosen.workers:
            child_with_workers(*words, workers=chosen.workers, killed=chosen.kill_worker)
        else:
            child(*words)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return compare(chosen, Path(scratch))


def compare(chosen, scratch):
    for name in ("killed", "whole"):
        shutil.copytree(chosen.database, scratch / name)
    db, moments = mlipdb.open(scratch / "killed"), random.Random(chosen.seed)
    submitters = workers = 0
    rows, stored = 1, rows_of(db)
    while submitters + workers < chosen.kills:
        after = moments.uniform(0.0, chosen.seconds)
        if chosen.workers and workers <= submitters:
            workers += run_with_a_killed_worker(words_of(chosen, db, rows), after=after)
            ended = True
        else:
            ended = not run_and_kill(words_of(chosen, db, rows), after=after, ready="begin")
            submitters += not ended
        if ended and rows == MOST:
            forget(db)
            rows, stored = 1, []
        elif ended:
            rows += 1
        found = rows_of(db)
        assert set(stored) <= set(found), "a stored label is gone"
        stored = found
    whole, teacher = mlipdb.open(scratch / "whole"), named(chosen.weights)()
    ids = db.query(chosen.subset).ids
    reports = [label(one, teacher, ids=ids, hessian_rows=MOST) for one in (db, whole)]
    check(db, whole, ids, methods=[report.method_id for report in reports])
    print(
        f"{submitters} submitters and {workers} workers killed, {len(ids)} structures: every label equals that of an "
        f"undisturbed run, every row is there once"
    )
    return 0


def words_of(chosen, db, rows):
    fixed = [__file__, str(db.path), "--weights", str(chosen.weights), "--subset", chosen.subset]
    return [*fixed, "--workers", str(chosen.workers), "--child", str(rows)]


def run_with_a_killed_worker(words, *, after):
    """Run to the end while one worker is killed; whether it was still at work then."""
    done = subprocess.run(
        [sys.executable, *words, "--kill-worker", str(after)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return "killed a worker" in done.stdout


def forget(db):
    """All is labelled before there were kills enough: begin again with nothing."""
    for number, method in db.methods().items():
        if method.kind == "teacher":
            drop_labels(db, str(number))


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
