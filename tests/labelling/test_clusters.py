"""Labelling with a real Dask cluster and real Parsl workers of this machine, and with workers killed at work."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from mlipdb.catalog import LabelRow
from mlipdb.labelling import BatchLimits, Flush, LabelOptions, label
from mlipdb.labelling.executors import open_executor
from mlipdb.testing.worker_teachers import LoadPotential

SMALL_UNITS = LabelOptions(limits=BatchLimits(structures=3), flush=Flush(records=5), workers=2)
pytestmark = [pytest.mark.slow, pytest.mark.enable_socket]


def check_everything_once(db, report):
    """40 structures, each with one row, and nothing left in the spool."""
    assert (report.labelled + report.already, report.failed) == (40, 0)
    with db.session() as session:
        of_teacher = select(func.count(), func.count(LabelRow.structure_id.distinct())).where(
            LabelRow.method_id == report.method_id, LabelRow.status == "done"
        )
        assert tuple(session.execute(of_teacher).one()) == (40, 40)
    assert not db.verify(deep=True).problems
    assert db.verify().orphans == ()
    assert not list((db.path / "spool").glob("*"))


@pytest.fixture(scope="module")
def dask_address(tmp_path_factory):
    """A scheduler and two workers with nannies, in processes of their own."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, "start_new_session": True}
    scheduler_file = folder / "scheduler.json"
    common = ["--scheduler-file", str(scheduler_file)]
    first = [sys.executable, "-m", "distributed.cli.dask_scheduler", *common, "--no-dashboard", "--host", "127.0.0.1"]
    second = [
        sys.executable, "-m", "distributed.cli.dask_worker", *common, "--nworkers", "2", "--nthreads", "1",
        "--no-dashboard", "--local-directory", str(folder), "--host", "127.0.0.1",
    ]  # fmt: skip
    processes = [subprocess.Popen([*first, "--port", "0"], **quiet), subprocess.Popen(second, **quiet)]
    try:
        yield address_in(scheduler_file)
    finally:
        for process in reversed(processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def address_in(file):
    for _ in range(600):
        if file.exists() and file.read_text().strip():
            return json.loads(file.read_text())["address"]
        time.sleep(0.1)
    raise TimeoutError(f"no scheduler wrote {file}")


def test_dask_workers_label_each_structure_once(db, ids, dask_address):
    with open_executor(f"dask:{dask_address}") as force:
        report = label(db, LoadPotential(), ids=ids, hessian_rows=2, executor=force.executor, options=SMALL_UNITS)
    assert report.rows == sum(min(2, 3 * len(structure)) for structure in db.structures(ids))
    check_everything_once(db, report)


def test_a_killed_dask_worker_costs_nothing(db, ids, dask_address, tmp_path):
    deadly = LoadPotential(deadly=14, once=tmp_path / "died", seconds=0.05)
    with open_executor(f"dask:{dask_address}") as force:
        report = label(db, deadly, ids=ids, executor=force.executor, options=SMALL_UNITS)
    assert (tmp_path / "died").exists()
    check_everything_once(db, report)


THREADS = """
from parsl import Config
from parsl.executors.threads import ThreadPoolExecutor

config = Config(executors=[ThreadPoolExecutor(max_threads=2)], run_dir={run_dir!r}, usage_tracking=0, strategy="none")
"""

PARSL = """
from parsl import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

config = Config(
    executors=[
        HighThroughputExecutor(
            label="here",
            address="127.0.0.1",
            loopback_address="127.0.0.1",
            max_workers_per_node=2,
            cores_per_worker=0.5,
            heartbeat_period=2,
            heartbeat_threshold=10,
            worker_debug=False,
            encrypted=False,
            provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
        )
    ],
    run_dir={run_dir!r},
    strategy="none",
    usage_tracking=0,
)
"""

PARSL_SUBMITTER = """
import sys, mlipdb
from mlipdb.labelling import BatchLimits, Flush, LabelOptions, label
from mlipdb.labelling.executors import open_executor
from mlipdb.testing.worker_teachers import LoadPotential
from pathlib import Path
if __name__ == "__main__":
    db = mlipdb.open(sys.argv[1])
    options = LabelOptions(limits=BatchLimits(structures=3), flush=Flush(records=5), workers=2)
    teacher = LoadPotential(deadly=14 if sys.argv[3] else None, once=Path(sys.argv[3]) if sys.argv[3] else None)
    with open_executor(f"parsl:{sys.argv[2]}") as force:
        report = label(db, teacher, ids=db.query("all").ids, executor=force.executor, options=options)
    print(f"labelled={report.labelled} failed={report.failed}")
"""


@pytest.mark.parametrize(
    ("text", "deadly"), [(THREADS, False), (PARSL, False), (PARSL, True)], ids=["threads", "processes", "killed"]
)
def test_parsl_workers_label_each_structure_once(db, ids, tmp_path, text, deadly):
    # in a process of its own: Parsl keeps threads and a state for the whole process
    pytest.importorskip("parsl")
    config, program = tmp_path / "config.py", tmp_path / "submit.py"
    config.write_text(text.replace("{run_dir!r}", repr(str(tmp_path / "runs"))))
    program.write_text(PARSL_SUBMITTER)
    died = tmp_path / "died"
    words = [sys.executable, str(program), str(db.path), str(config), str(died) if deadly else ""]
    # its programs are found beside the interpreter
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    program_output = output_of(words, cwd=tmp_path, env=os.environ | path)
    assert "labelled=40 failed=0" in program_output
    assert died.exists() == deadly
    check_everything_once(db, label(db, LoadPotential()(), ids=ids))


def output_of(words, **where):
    """What a program prints; it and what it started are ended when it takes too long."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **where
    ) as process:
        try:
            return process.communicate(timeout=250)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
