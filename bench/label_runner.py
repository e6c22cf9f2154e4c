"""What the labelling runner costs over the bare teacher, and what a second worker gains.

    python bench/label_runner.py overhead DATABASE [--teacher NAME] [--weights FILE] [--rows 0] [--structures 1024]
    python bench/label_runner.py dask DATABASE [--teacher NAME] [--weights FILE] [--rows 4] [--structures 1024]

overhead: the same batches of 64 structures, in turn by teacher.label alone and by the whole of `label`, which reads
structures, finds their edges, packs, checks and stores; each side is the median of --rounds runs, warm. The batches of
the bare side are those that the runner packed, so that both compile for the same shapes. The neighbour lists, which
teachers find when they are asked for edges, are found anew on both sides.

dask: structures per second of one and of two Dask workers on a core each (XLA has threads of its own), warm, each run
on its own copy of the database.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import mlipdb
from mlipdb.labelling import BatchLimits, Flush, LabelOptions, LabelRequest, NamedTeacher, TeacherOptions, label
from mlipdb.labelling.executors import open_executor

LIMITS = BatchLimits(structures=64, atoms=10**6, edges=10**9)
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OPENBLAS_NUM_THREADS": "1",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "dask"])
    parser.add_argument("database", type=Path)
    parser.add_argument("--teacher", default="nequix-demo")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--subset", default="all")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--structures", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    rows = chosen.rows if chosen.rows is not None else {"overhead": 0, "dask": 4}[chosen.what]
    teacher = NamedTeacher(name=chosen.teacher, options=TeacherOptions(weights=chosen.weights))
    with tempfile.TemporaryDirectory() as scratch:
        measure = overhead if chosen.what == "overhead" else dask
        measure(chosen, teacher, rows=rows, scratch=Path(scratch))


def a_copy(chosen, place):
    """A database of its own, so that nothing is labelled already; and the ids."""
    shutil.copytree(chosen.database, place)
    db = mlipdb.open(place)
    return db, db.query(chosen.subset).ids[: chosen.structures]


class Recorder:
    """A teacher that notes what it is asked, and passes it on."""

    def __init__(self, teacher):
        self.info, self.batch_limits = teacher.info, teacher.batch_limits
        self.teacher, self.asked = teacher, []

    def edges(self, structure):
        return self.teacher.edges(structure)

    def label(self, structures, request):
        self.asked.append((structures, request))
        return self.teacher.label(structures, request)


def overhead(chosen, load, *, rows, scratch):
    recorder = Recorder(load())
    options = LabelOptions(limits=LIMITS)
    db, ids = a_copy(chosen, scratch / "warm")
    report = label(db, recorder, ids=ids, hessian_rows=rows, options=options)
    assert report.failed == 0, report.reasons
    bare, whole = [], []
    for number in range(chosen.rounds):
        bare.append(seconds_of(lambda: ask(recorder)))
        db, ids = a_copy(chosen, scratch / str(number))
        forget_lists(recorder.teacher)
        whole.append(
            seconds_of(lambda db=db, ids=ids: label(db, recorder.teacher, ids=ids, hessian_rows=rows, options=options))
        )
    first, second = statistics.median(bare), statistics.median(whole)
    sizes = [len(structures) for structures, _ in recorder.asked]
    print(
        f"{len(ids)} structures in {len(sizes)} batches (median {int(np.median(sizes))}), {rows} rows each: bare "
        f"teacher {first:.2f} s, whole run {second:.2f} s, overhead {100 * (second / first - 1):.1f} %"
    )


def ask(recorder):
    """What the runner asked for, of the teacher alone, which finds its neighbours anew."""
    forget_lists(recorder.teacher)
    for structures, request in recorder.asked:
        for structure in structures:
            recorder.teacher.edges(structure)
        recorder.teacher.label(
            structures, LabelRequest(base=request.base, hessian_row_numbers=request.hessian_row_numbers)
        )


def forget_lists(teacher):
    getattr(teacher, "_lists", {}).clear()


def seconds_of(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def dask(chosen, load, *, rows, scratch):
    rates = {1: [], 2: []}
    for workers in rates:
        with Cluster(workers, scratch / f"cluster-{workers}") as address, open_executor(f"dask:{address}") as force:
            options = LabelOptions(workers=workers, flush=Flush(seconds=5.0))
            for number in range(chosen.rounds + 1):
                db, ids = a_copy(chosen, scratch / f"{workers}-{number}")
                report = label(db, load, ids=ids, hessian_rows=rows, executor=force.executor, options=options)
                assert report.labelled == len(ids), report.reasons
                if number:  # the first run compiles
                    rates[workers].append(len(ids) / report.seconds)
    one, two = (statistics.median(rates[workers]) for workers in (1, 2))
    print(
        f"{len(ids)} structures, {rows} rows each: one Dask worker {one:.1f} structures/s, two {two:.1f}, "
        f"{two / one:.2f} times as many"
    )


class Cluster:
    """A scheduler and some workers of one thread each."""

    def __init__(self, workers, folder):
        self.workers, self.folder = workers, folder

    def __enter__(self):
        self.folder.mkdir()
        file = self.folder / "scheduler.json"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.folder}
        common = ["--scheduler-file", str(file), "--no-dashboard", "--host", "127.0.0.1"]
        first = [sys.executable, "-m", "distributed.cli.dask_scheduler", *common, "--port", "0"]
        second = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            *common,
            "--nthreads",
            "1",
        ]
        pinned = [["taskset", "-c", str(core), *second] for core in range(self.workers)]
        self.processes = [subprocess.Popen(words, env=os.environ | ONE_THREAD, **quiet) for words in (first, *pinned)]
        while not (file.exists() and file.read_text().strip()):
            time.sleep(0.2)
        return json.loads(file.read_text())["address"]

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
