"""kill -9 an ingest at random moments, many times, and see that nothing is lost and nothing doubled.

    python bench/kill_ingest.py FILE.json [--kills 20] [--seed 0]

One database is filled by a run that is killed again and again until it is through; then its rows are compared with
those of an undisturbed run, and every record is decoded.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from sqlalchemy import select

import mlipdb
from mlipdb.catalog import Quarantine, StructureRow
from mlipdb.ingest import IngestSettings, ingest, line
from mlipdb.testing.kill import run_and_kill


def child(path, directory):
    db = mlipdb.create(directory)
    print("begin", flush=True)
    line.SMALL = 0  # worker processes from the start
    ingest(db, [path], settings=IngestSettings(reader="mptrj", batch=64, workers=2))


def content(db):
    with db.session() as session:
        rows = session.scalars(select(StructureRow)).all()
        structures = sorted((row.external_id, row.content_hash, row.space_group_it_number) for row in rows)
        bad = sorted((row.key, row.location) for row in session.scalars(select(Quarantine)))
    facts = db.source_facts("mptrj")
    return structures, bad, [facts[name] for name in ("taken", "duplicates", "quarantined", "state", "sha256")]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.file, chosen.child)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return compare(chosen, Path(scratch))


def compare(chosen, scratch):
    whole = mlipdb.create(scratch / "whole")
    report = ingest(whole, [chosen.file], settings=IngestSettings(reader="mptrj"))
    moments = random.Random(chosen.seed)
    killed = through = 0
    while killed < chosen.kills:
        target = scratch / f"db{through}"
        words = [__file__, str(chosen.file), "--child", str(target)]
        if run_and_kill(words, after=moments.uniform(0.0, report.seconds * 0.6), ready="begin"):
            killed += 1
            continue
        through += 1
        check(target, content(whole))
    db = mlipdb.open(target)
    ingest(db, [chosen.file], settings=IngestSettings(reader="mptrj"))
    check(target, content(whole))
    print(f"{killed} kills, {through + 1} databases complete: rows equal to an undisturbed run, every record decodes")
    return 0


def check(target, expected):
    db = mlipdb.open(target)
    removed = len(db.gc().removed)
    verified = db.verify(deep=True)
    if content(db) != expected or not verified.ok or verified.orphans:
        sys.exit(f"{target}: rows differ or records are damaged: {verified}")
    print(f"{target.name}: {len(expected[0])} structures, {removed} orphan shards removed", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
