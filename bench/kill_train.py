"""kill -9 `mlipdb train` at random moments, many times, resume it, and see that the same bits come out.

    python bench/kill_train.py [--kills 20] [--seed 0]

A toy database is made and copied. In one copy runs are killed again and again, by turns at a random moment and before
a random one of the file operations in the runs' folder, and go on by --resume, or are started again where no row was
left; a run that is through is followed by another, with another seed. In the other copy the same runs are never
disturbed. In the end rows, metrics, files and every array of the checkpoints are compared.
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import select

import mlipdb
from mlipdb.catalog import Run
from mlipdb.cli.app import app
from mlipdb.testing.kill import run_and_kill
from mlipdb.testing.training import TINY, training_database
from mlipdb.trainers.archive import read_arrays, read_document
from mlipdb.trainers.run_files import best_checkpoint, last_checkpoint
from mlipdb.trainers.runs import find_run, run_folder, run_names

SETTINGS = (*TINY, "epochs=10", "checkpoint.every_steps=1")


class Fatal:
    """An audit hook that counts file operations below a folder and kills this process before one of them."""

    def __init__(self, folder, number):
        self.folder, self.number, self.count = str(folder), number, 0

    def __call__(self, event, arguments):
        if event != "open" and not event.startswith(("os.", "shutil.")):
            return
        if any(str(argument).startswith(self.folder) for argument in arguments):
            self.count += 1
            if self.count == self.number:
                os.kill(os.getpid(), signal.SIGKILL)


def child(database, number, words):
    fatal, started = Fatal(database / "runs", number), time.monotonic()
    print("begin", flush=True)
    sys.addaudithook(fatal)
    app(["--db", str(database), "train", *words], standalone_mode=False)
    print(json.dumps([time.monotonic() - started, fatal.count]))


def command(db, name, *, number=0):
    """What goes on with the run, or starts it; it dies before the file operation of that number, if not 0."""
    words = [__file__, "--child", str(db.path), str(number)]
    if name in run_names(db):
        return [*words, "--resume", name]
    settings = [*SETTINGS, f"seed={name.removeprefix('run-')}"]
    options = ["--subset", "toy", "--teacher", "pair-potential", "--name", name]
    return [*words, *options, *(word for setting in settings for word in ("--set", setting))]


def finish(db, name):
    """Let the run go to its end; seconds and file operations that it took."""
    ended = subprocess.run([sys.executable, *command(db, name)], capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{name} cannot go on: {ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])


def kill_at_moment(db, name, *, after):
    return run_and_kill(command(db, name), after=after, ready="begin")


def kill_at_operation(db, name, *, number):
    words = [sys.executable, *command(db, name, number=number)]
    return subprocess.run(words, capture_output=True, check=False).returncode == -signal.SIGKILL


def kill_runs(db, *, kills, dice, seconds, operations):
    """Kill runs so many times, and go on with them; how many kills left no row and no checkpoint, and the names."""
    killed = number = unborn = early = 0
    while killed < kills:
        name = f"run-{number}"
        if killed % 2:  # small numbers are as likely as large ones: a run's first operations are few
            died = kill_at_operation(db, name, number=round(math.exp(dice.uniform(0.0, math.log(operations)))))
        else:
            died = kill_at_moment(db, name, after=dice.uniform(0.0, seconds))
        if died:
            killed += 1
            there = name in run_names(db)
            unborn += not there
            early += there and last_checkpoint(run_folder(db, name)) is None
        elif find_run(db, name).state == "finished":
            number += 1
        else:
            finish(db, name)  # says why it cannot go on
    finish(db, name)
    return unborn, early, sorted(run_names(db))


def content(db, name):
    """All that must not depend on kills: the row but for its times, names of files, arrays of the checkpoints."""
    with db.session() as session:
        row = session.scalars(select(Run).where(Run.name == name)).one()
        facts = [row.kind, row.state, row.config, row.subset_hash, row.methods, row.metrics, row.versions, row.path]
    folder, arrays = run_folder(db, name), {}
    for place in (last_checkpoint(folder), best_checkpoint(folder)):
        document = read_document(place)
        facts.append(document)
        for group in ("state", "model"):
            for key, array in read_arrays(place, document, group).items():
                arrays[place.name, group, key] = (array.dtype.str, array.shape, array.tobytes())
    # Names of event files hold the second that they were made in, and each process makes one.
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if "tfevents" not in file.name)
    texts = [(folder / name).read_text() for name in ("recipe.toml", "checkpoints.json")]
    return {"row and documents": json.dumps(facts, sort_keys=True), "files": files, "texts": texts, "arrays": arrays}


def check(db, whole, names):
    for name in names:
        found, expected = content(db, name), content(whole, name)
        for what in expected:
            if found[what] != expected[what]:
                shown = "" if what == "arrays" else f": {found[what]} instead of {expected[what]}"
                sys.exit(f"{name}: {what} differ from an undisturbed run's{shown}")
    report = db.verify(deep=True)
    if not report.ok or report.orphans:
        sys.exit(f"the database is damaged: {report}")


def compare(chosen, scratch):
    # Both are copies: reading the files of a database that this process has open would end SQLite's locks on them.
    made = training_database(scratch / "made").path
    db, whole = (mlipdb.open(shutil.copytree(made, scratch / name)) for name in ("killed", "whole"))
    finish(whole, "run-0")  # what compiles the programs
    (seconds, operations), dice = finish(whole, "run-1"), random.Random(chosen.seed)
    limits = {"seconds": 0.75 * seconds, "operations": operations}  # so that runs are killed more than once
    unborn, early, names = kill_runs(db, kills=chosen.kills, dice=dice, **limits)
    if names != sorted(f"run-{number}" for number in range(len(names))):
        sys.exit(f"runs are lost or doubled: {names}")
    for name in names:
        if name not in run_names(whole):
            finish(whole, name)
    check(db, whole, names)
    print(
        f"{chosen.kills} kills ({unborn} before the run's row, {early} before its first checkpoint), "
        f"{len(names)} runs: every row, metric, file and array equals that of an undisturbed run"
    )
    return 0


def main():
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{scratch}/compiled"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        return compare(chosen, Path(scratch))


if __name__ == "__main__":
    sys.exit(main())
