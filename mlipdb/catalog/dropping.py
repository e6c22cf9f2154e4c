"""Labels of a method taken out of the catalog."""

from dataclasses import dataclass

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from mlipdb.catalog.facets import drop_facets
from mlipdb.catalog.label import LabelRow
from mlipdb.catalog.rows import CHUNK
from mlipdb.catalog.shard import DROPPED, ShardRow


@dataclass(frozen=True, kw_only=True)
class DroppedLabels:
    """What was taken out: rows, those of them that were failures, and shards, whose bytes gc gives back."""

    rows: int
    failed: int
    shards: int
    bytes: int


def labels_with_structures(session: Session, method: int) -> int:
    """How many labels of a method came with the structures: they are in the structures' shards."""
    query = select(func.count()).select_from(LabelRow).join(ShardRow, ShardRow.id == LabelRow.shard_id)
    return session.scalar(query.where(LabelRow.method_id == method, ShardRow.kind == "structures")) or 0


def drop_label_rows(session: Session, method: int) -> DroppedLabels:
    """Delete the rows of a method's labels, and mark the shards that held them as dropped.

    The method stays: runs name it by its number. Not for labels that came with structures.
    """
    mine = LabelRow.method_id == method
    failed = func.sum(case((LabelRow.status == "failed", 1), else_=0))
    counted, failures = session.execute(select(func.count(), failed).where(mine)).one()
    used = select(LabelRow.shard_id).where(mine, LabelRow.shard_id.is_not(None)).distinct()
    shards = [shard for shard in session.scalars(used) if shard is not None]
    session.execute(delete(LabelRow).where(mine))
    size = 0
    for start in range(0, len(shards), CHUNK):
        chunk = shards[start : start + CHUNK]
        drop_facets(session, chunk)
        size += int(session.scalar(select(func.sum(ShardRow.bytes)).where(ShardRow.id.in_(chunk))) or 0)  # a Decimal
        session.execute(update(ShardRow).where(ShardRow.id.in_(chunk)).values(kind=DROPPED))
    return DroppedLabels(rows=counted, failed=failures or 0, shards=len(shards), bytes=size)
