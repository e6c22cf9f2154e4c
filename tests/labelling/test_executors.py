"""Labels made by workers: the same as those made here, each once, whoever is killed."""

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select

from mlipdb.catalog import LabelRow
from mlipdb.errors import ConfigError, LabelError
from mlipdb.labelling import BatchLimits, Flush, LabelOptions, NamedTeacher, label
from mlipdb.labelling import spool as spools
from mlipdb.labelling.executors import open_executor
from mlipdb.labelling.process_pool import ProcessPool
from mlipdb.labelling.runner import LabelReport
from mlipdb.labelling.teacher import LabelRequest
from mlipdb.labelling.unit import WorkUnit, run_unit
from mlipdb.labels import label_hash
from mlipdb.testing.kill import run_and_kill
from mlipdb.testing.potential import PairPotential
from mlipdb.testing.worker_teachers import LoadPotential

pytestmark = pytest.mark.slow

BASE = LabelRequest(base=True, hessian_row_numbers=[np.zeros(0, np.int32)])
SMALL_UNITS = LabelOptions(limits=BatchLimits(structures=3), flush=Flush(records=5), workers=2)


@pytest.fixture(scope="module")
def pool():
    pool = ProcessPool(2)
    yield pool
    pool.shutdown(cancel_futures=True)


def label_rows(db, report, **where):
    with db.session() as session:
        query = select(LabelRow).filter_by(method_id=report.method_id, **where).order_by(LabelRow.structure_id)
        return session.scalars(query).all()


def check_all_labelled_once(db, report: LabelReport, ids, *, rows=0, but=()):
    """Each structure has one done row a part, exactly the teacher's label, and the database is whole."""
    parts = [(row.structure_id, row.part) for row in label_rows(db, report, status="done")]
    assert len(parts) == len(set(parts))
    assert {identity for identity, _ in parts} == set(ids.tolist()) - set(but)
    for identity in sorted(set(ids.tolist()) - set(but)):
        structure = db.structure(identity)
        found = next(item for item in db.labels(identity) if item.method_id == report.method_id)
        np.testing.assert_array_equal(found.forces, PairPotential().label([structure], BASE)[0].forces)
        assert len([] if found.hessian_row_numbers is None else found.hessian_row_numbers) == min(
            rows, 3 * len(structure)
        )
    assert not db.verify(deep=True).problems
    assert db.verify().orphans == ()
    assert not list((db.path / spools.FOLDER).glob("*"))


def test_workers_store_what_this_process_would_have_stored(db, other_db, ids, pool):
    report = label(db, LoadPotential(), ids=ids, hessian_rows=2, executor=pool, options=SMALL_UNITS)
    here = label(other_db, PairPotential(), ids=ids, hessian_rows=2)
    assert (report.labelled, report.failed, report.rows) == (40, 0, here.rows)
    assert report.method == here.method
    check_all_labelled_once(db, report, ids, rows=2)
    for identity in ids.tolist():
        mine = next(item for item in db.labels(identity) if item.method_id == report.method_id)
        theirs = next(item for item in other_db.labels(identity) if item.method_id == here.method_id)
        assert label_hash(mine) == label_hash(theirs)
    again = label(db, LoadPotential(), ids=ids, hessian_rows=3, executor=pool, options=SMALL_UNITS)
    assert (again.labelled, again.rows) == (40, 40)
    check_all_labelled_once(db, again, ids, rows=3)


def test_a_worker_without_the_spool_sends_its_shard(db, ids, pool, monkeypatch):
    monkeypatch.setattr(spools.Spool, "visible", db.path / "nowhere")
    report = label(db, LoadPotential(), ids=ids, executor=pool, options=SMALL_UNITS)
    assert report.labelled == 40
    check_all_labelled_once(db, report, ids)


def test_a_unit_whose_worker_was_killed_is_done_by_another(db, ids, pool, tmp_path):
    deadly = LoadPotential(deadly=14, once=tmp_path / "died")
    report = label(db, deadly, ids=ids, executor=pool, options=SMALL_UNITS)
    assert (tmp_path / "died").exists()
    assert (report.labelled, report.failed) == (40, 0)
    check_all_labelled_once(db, report, ids)


def test_a_structure_that_kills_its_workers_fails_alone(db, pool):
    silicon = [key for key in range(1, 41) if 14 in db.structure(key).composition]
    ids = np.array(sorted({*range(1, 13)} - {*silicon} | {silicon[0]}))
    pairs = replace(SMALL_UNITS, flush=Flush(records=2))
    report = label(db, LoadPotential(deadly=14), ids=ids, executor=pool, options=pairs)
    [failed] = label_rows(db, report, status="failed")
    assert failed.structure_id == silicon[0]
    assert "two workers were lost" in failed.reason
    assert "SIGKILL" in failed.reason
    check_all_labelled_once(db, report, ids, but=silicon[:1])
    again = label(db, LoadPotential(), ids=ids, executor=pool, retry_failed=True)
    assert (again.labelled, label_rows(db, report, status="failed")) == (1, [])


def test_workers_killed_from_outside_cost_nothing(db, ids, pool):
    stop = threading.Event()

    def killer():
        random = np.random.default_rng(5)
        for _ in range(3):
            if stop.wait(0.4) or not pool.pids:
                return
            os.kill(int(random.choice(pool.pids)), signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    report = label(db, LoadPotential(seconds=0.1), ids=ids, executor=pool, options=SMALL_UNITS)
    stop.set()
    thread.join()
    assert report.labelled + report.failed == 40
    assert report.failed == 0
    check_all_labelled_once(db, report, ids)


def test_an_error_in_a_workers_teacher_stops_the_run_but_keeps_what_is_done(db, ids, pool):
    with pytest.raises(LabelError, match="broken cable"):
        label(db, LoadPotential(broken=3), ids=ids, executor=pool, options=SMALL_UNITS)
    report = label(db, LoadPotential(), ids=ids, executor=pool, options=SMALL_UNITS)
    assert (report.failed, report.skipped) == (0, 0)
    assert report.already > 0
    assert report.already + report.labelled == 40
    check_all_labelled_once(db, report, ids)


def test_the_spool_of_a_run_that_lives_is_left_alone_and_that_of_a_dead_one_is_stored(db, ids, pool, monkeypatch):
    monkeypatch.setattr(spools, "_add_rows", dies_before_the_rows)
    with pytest.raises(KeyboardInterrupt):
        label(db, LoadPotential(), ids=ids, executor=pool, options=SMALL_UNITS)
    monkeypatch.undo()
    time.sleep(1)  # the units that were under way arrive in the spool
    [folder] = (db.path / spools.FOLDER).glob("*")
    waiting = len(list((folder / "shards").glob("*.lmdb")))
    assert waiting
    with spools.WriterLock(folder / "lock"):
        assert spools.adopt_leftovers(db) == 0
    asked = LoadPotential()
    report = label(db, asked, ids=ids, executor=pool, options=SMALL_UNITS)
    assert report.already >= 1
    assert report.already + report.labelled == 40
    check_all_labelled_once(db, report, ids)


def dies_before_the_rows(*_, **__):
    raise KeyboardInterrupt


SUBMITTER = """
import sys, mlipdb
from mlipdb.labelling import BatchLimits, Flush, LabelOptions, label
from mlipdb.labelling.executors import open_executor
from mlipdb.testing.worker_teachers import LoadPotential
db = mlipdb.open(sys.argv[1])
options = LabelOptions(limits=BatchLimits(structures=2), flush=Flush(records=4), workers=2)
with open_executor("processes:2") as force:
    say = lambda progress: print("begun", flush=True)
    label(db, LoadPotential(seconds=0.05), ids=db.query("all").ids, executor=force.executor, options=options,
          progress=say)
"""


def test_a_killed_submitter_is_followed_by_one_that_repeats_nothing(db, ids, pool):
    for after in (0.05, 0.3):
        run_and_kill(["-c", SUBMITTER, str(db.path)], after=after, ready="begun")
    report = label(db, LoadPotential(), ids=ids, executor=pool, options=SMALL_UNITS)
    assert report.already >= 4
    assert report.already + report.labelled == 40
    db.gc()
    check_all_labelled_once(db, report, ids)


def test_a_worker_with_another_teacher_is_refused(db, ids, pool):
    with pytest.raises(LabelError, match="loaded in this process"):
        label(db, PairPotential(), ids=ids, executor=pool)
    unit = units_of(db, replace(LoadPotential(), strength=0.5))
    with pytest.raises(LabelError, match="another method than that of the run: weights_sha256"):
        pool.submit(run_unit, unit).result()


def units_of(db, load):
    return WorkUnit(
        load=load, method=PairPotential().info.method(), uuid=db.uuid, spool=db.path, limits=None, pseudo=False
    )


def test_a_named_teacher_is_loaded_by_the_workers(db, pool):
    report = label(db, NamedTeacher(name="nequix-demo"), ids=np.array([1, 2]), executor=pool, options=SMALL_UNITS)
    assert report.method.name == "nequix-demo"
    assert report.labelled + report.failed == 2


@pytest.mark.parametrize("text", ["slurm", "dask", "processes:many", "processes:0", "parsl:", "parsl:/nowhere.py"])
def test_an_executor_that_cannot_be_says_what_can(text):
    with pytest.raises(ConfigError, match=r"processes|dask|file"), open_executor(text):
        pass
