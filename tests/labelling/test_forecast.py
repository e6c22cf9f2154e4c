import numpy as np
from sqlalchemy import func, select

from mlipdb.catalog import LabelRow, MethodRow, ShardRow
from mlipdb.labelling import forecast, label
from mlipdb.testing.potential import PairPotential


def counts(db):
    with db.session() as session:
        return [session.scalar(select(func.count()).select_from(table)) for table in (LabelRow, MethodRow, ShardRow)]


def test_a_forecast_counts_what_a_run_would_do_and_stores_nothing(db, ids, teacher):
    before = counts(db)
    found = forecast(db, teacher, ids=ids, hessian_rows=4, probe=10)
    assert counts(db) == before
    assert (found.structures, found.already, found.probed, found.failed) == (40, 0, 10, 0)
    report = label(db, PairPotential(), ids=ids, hessian_rows=4)
    assert (report.labelled, report.rows) == (found.structures, found.rows)


def test_what_is_there_needs_nothing(db, ids, teacher):
    label(db, teacher, ids=ids[:30], hessian_rows=2)
    found = forecast(db, teacher, ids=ids, hessian_rows=2)
    assert (found.structures, found.already, found.probed) == (10, 30, 10)
    assert forecast(db, teacher, ids=ids[:30], hessian_rows=2).seconds == 0


def test_the_forecast_of_disk_is_near_what_the_shards_take(db, ids, teacher):
    found = forecast(db, teacher, ids=ids, hessian_rows="all", probe=20)
    report = label(db, teacher, ids=ids, hessian_rows="all")
    with db.session() as session:
        shards = select(LabelRow.shard_id).filter_by(method_id=report.method_id)
        size = int(session.scalar(select(func.sum(ShardRow.bytes)).where(ShardRow.id.in_(shards))))
    # pages of 4 KiB weigh in so small a shard
    assert 0.5 * size < found.bytes < 2 * size


def test_the_probe_spreads_over_sizes(db, ids, teacher):
    forecast(db, teacher, ids=ids, probe=6)
    sizes = sorted(len(structure) for structure in db.structures(ids))
    assert teacher.structures_asked == 2 * 6
    assert np.ptp(sizes) > 3


def test_failures_of_the_probe_are_told(db, ids):
    found = forecast(db, PairPotential(elements=frozenset({1, 6, 8})), ids=ids, probe=40)
    silicon = [key for key in ids.tolist() if 14 in db.structure(key).composition]
    assert found.failed == len(silicon)
    assert "does not cover Si" in found.reasons[0][1]
