"""An ingest with worker processes: the rows of one without, and nothing lost when something is stopped or killed."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

import mlipdb
from mlipdb.catalog import LabelRow, ShardRow, StructureElement, StructureRow
from mlipdb.errors import IngestError
from mlipdb.ingest import IngestSettings, blocks, ingest, line

pytestmark = pytest.mark.slow

FRAMES = 400
BAD = range(3, FRAMES, 150)


@pytest.fixture
def from_the_start(monkeypatch):
    """Worker processes are started with the first block, blocks are small, and a few of them are handed in ahead."""
    monkeypatch.setattr(line, "SMALL", 0)
    monkeypatch.setattr(line, "WAITING", 12)
    monkeypatch.setattr(blocks, "RECORDS", 16)


@pytest.fixture
def file(mptrj_file, record):
    """Many small frames, some of them bad or twice."""
    content = {}
    for number in range(FRAMES):
        changes = {"force": None} if number in BAD else {}
        shift = (number - number % 300 // 299) / 32768  # the last of 300 repeats the one before it
        name = f"mp-{number // 40}"
        content.setdefault(name, {})[f"{name}-0-{number}"] = record(mp_id=name, shift=shift, **changes)
    return mptrj_file(content)


def run(db, path, *, workers, progress=None, **settings):
    chosen = IngestSettings(reader="mptrj", workers=workers, batch=100, **settings)
    return ingest(db, [path], settings=chosen, progress=progress)


def wait_for_processes(report):
    time.sleep(0.05)  # the first blocks are done in this process while the others start


def rows(db, *, shards=True):
    """A hash of every table's rows, ids and all, and the source's counts; without shards, interruptions do not show."""
    left_out = ("sealed_at", "path", "sha256", *(() if shards else ("shard_id",)))
    stored = {}
    with db.session() as session:
        for table in (StructureRow, StructureElement, LabelRow, ShardRow)[: 4 if shards else 3]:
            columns = [column for column in table.__table__.columns if column.name not in left_out]
            found = session.execute(select(*columns).order_by(*columns[:2])).all()
            stored[table.__name__] = hashlib.sha256(repr(found).encode()).hexdigest()
    facts = db.source_facts("mptrj")
    return stored | {name: facts[name] for name in ("taken", "duplicates", "quarantined", "sha256", "state")}


@pytest.mark.parametrize("symprec", [None, 1e-2])
def test_the_rows_are_the_same_with_any_number_of_workers(tmp_path, file, from_the_start, symprec):
    found = []
    for workers in (0, 1, 2):
        db = mlipdb.create(tmp_path / f"db{workers}")
        report = run(db, file, workers=workers, symprec=symprec, progress=wait_for_processes)
        assert (report.records, report.quarantined) == (FRAMES, len(BAD))
        assert report.duplicates > 0
        assert [record.key for record in report.rejected] == [f"mp-{n // 40}-0-{n}" for n in BAD]
        found.append(rows(db))
        assert db.verify(deep=True).ok
    assert found[0] == found[1] == found[2]


def test_a_repeated_ingest_that_starts_with_known_frames_takes_the_new_ones(tmp_path, file, from_the_start):
    whole = mlipdb.create(tmp_path / "whole")
    run(whole, file, workers=0)
    db = mlipdb.create(tmp_path / "db")
    text = file.read_bytes()
    file.write_bytes(text[: len(text) // 2])
    with pytest.raises(IngestError, match="the file ends inside"):
        run(db, file, workers=2, progress=wait_for_processes)
    file.write_bytes(text)
    before = len(db.query("all").ids)
    report = run(db, file, workers=2, progress=wait_for_processes)
    assert report.already_taken == before
    assert report.structures == len(whole.query("all").ids)
    assert rows(db, shards=False) == rows(whole, shards=False)


def children():
    """The processes that this one has started, a database server among them."""
    return {int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_a_worker_that_is_killed_is_named_and_the_repeated_command_completes(tmp_path, file, from_the_start):
    db = mlipdb.create(tmp_path / "db")
    others, killed = children(), []

    def kill_one(report):
        wait_for_processes(report)
        workers = children() - others
        if workers and report.records >= 100 and not killed:
            killed.append((workers.pop(), report.records))
            os.kill(killed[0][0], signal.SIGKILL)

    with pytest.raises(IngestError, match=r"worker process \d+ was ended by signal 9.*mptrj.json, byte \d+.*taken \d+"):
        run(db, file, workers=1, progress=kill_one)
    assert db.source_facts("mptrj")["state"] == "stopped"
    kept = len(db.query("all").ids)
    assert kept > killed[0][1] - 10  # a few are bad or twice
    assert run(db, file, workers=2).already_taken == kept
    whole = mlipdb.create(tmp_path / "whole")
    run(whole, file, workers=0)
    assert rows(db, shards=False) == rows(whole, shards=False)


def test_ctrl_c_keeps_what_was_taken_and_says_how_to_go_on(tmp_path, file, from_the_start):
    db = mlipdb.create(tmp_path / "db")

    def interrupt(report):
        wait_for_processes(report)
        if report.records > 256:
            raise KeyboardInterrupt

    with pytest.raises(IngestError, match=r"interrupted; repeat the command to go on \[taken \d+"):
        run(db, file, workers=1, progress=interrupt)
    kept = len(db.query("all").ids)
    assert kept > 250
    assert run(db, file, workers=0).already_taken == kept


PROGRAM = """
import sys, time
from pathlib import Path
import mlipdb
from mlipdb.ingest import IngestSettings, blocks, ingest, line
line.SMALL, blocks.RECORDS = 0, 16
def tell(report):
    print(report.records, flush=True)
    time.sleep(0.1)
settings = IngestSettings(reader="mptrj", workers=2)
ingest(mlipdb.create(sys.argv[2]), [Path(sys.argv[1])], settings=settings, progress=tell)
"""


def test_worker_processes_end_when_the_ingest_is_killed(tmp_path, file):
    words = [sys.executable, "-c", PROGRAM, str(file), str(tmp_path / "db")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2
        process.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "worker processes outlive the ingest"
        time.sleep(0.05)


def test_frames_come_in_file_order(tmp_path, file, from_the_start):
    db = mlipdb.create(tmp_path / "db")
    run(db, file, workers=2, symprec=None, progress=wait_for_processes)
    with db.session() as session:
        found = session.scalars(select(StructureRow.external_id).order_by(StructureRow.id)).all()
    expected = [key for records in json.loads(file.read_text()).values() for key in records]
    assert found == [key for key in expected if key in set(found)]
