"""kill -9 at random points of an ingest: nothing lost, nothing doubled. bench/kill_ingest.py does it more often."""

import random

import pytest
from sqlalchemy import select

import mlipdb
from mlipdb.catalog import StructureRow
from mlipdb.ingest import IngestSettings, ingest
from mlipdb.testing.kill import run_and_kill

PROGRAM = """
import sys, time
from pathlib import Path
import mlipdb
from mlipdb.ingest import IngestSettings, ingest, line
line.SMALL = 0
db = mlipdb.create(sys.argv[2])
print("begin", flush=True)
settings = IngestSettings(reader="mptrj", workers=int(sys.argv[3]), batch=16)
ingest(db, [Path(sys.argv[1])], settings=settings, progress=lambda report: time.sleep(0.01))
"""


def content(db):
    with db.session() as session:
        rows = session.scalars(select(StructureRow)).all()
    facts = db.source_facts("mptrj")
    return (
        sorted((row.external_id, row.content_hash, row.space_group_symbol) for row in rows),
        (facts["taken"], facts["duplicates"], facts["quarantined"], facts["state"], facts["sha256"]),
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, root):
    sample = root / "mlipdb" / "data" / "gpaw-pbe-sample.json.gz"
    db = mlipdb.create(tmp_path_factory.mktemp("whole") / "db")
    ingest(db, [sample], settings=IngestSettings(reader="mptrj", workers=0))
    return sample, content(db)


# Without workers a run takes some 0.4 s; with them the first 1.5 s pass while they start.
@pytest.mark.parametrize(
    ("seed", "workers", "longest"), [*((seed, 0, 0.4) for seed in range(4)), (4, 2, 2.0), (5, 2, 2.0)]
)
def test_an_ingest_that_is_killed_twice_and_repeated_ends_with_the_same_rows(
    tmp_path, undisturbed, seed, workers, longest
):
    sample, expected = undisturbed
    moments = random.Random(seed)
    for _ in range(2):
        words = ["-c", PROGRAM, str(sample), str(tmp_path / "db"), str(workers)]
        run_and_kill(words, after=moments.uniform(0.0, longest), ready="begin")
    db = mlipdb.open(tmp_path / "db")
    assert db.verify(deep=True).ok
    ingest(db, [sample], settings=IngestSettings(reader="mptrj", workers=0))
    assert content(db) == expected
    db.gc()
    report = db.verify(deep=True)
    assert report.ok
    assert not report.orphans
