"""Where a run's structures and labels come from: sources with their licences, methods with their weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlipdb.catalog import LabelRow, ShardRow, Source, StructureRow, SubsetMember
from mlipdb.catalog.rows import CHUNK
from mlipdb.database import Database
from mlipdb.labels import Method
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.trainers.report.errors import Catalogued


@dataclass(frozen=True, kw_only=True)
class SourceUse:
    """A source, and how many structures of the subset are from it."""

    name: str
    version: str | None
    uri: str
    sha256: str | None
    licence: str | None
    citation: str | None
    structures: int


@dataclass(frozen=True, kw_only=True)
class MethodUse:
    """A method, what the run took from it, and how many structures of the subset it has labelled, with Hessian rows."""

    id: int
    method: Method
    use: str
    structures: int
    hessian_rows: int


def source_uses(db: Database, subset: FrozenSubset) -> list[SourceUse]:
    """The sources of a subset, the largest first."""
    count = func.count()
    query = select(Source, count).join(StructureRow, StructureRow.source_id == Source.id)
    query = query.join(SubsetMember, SubsetMember.structure_id == StructureRow.id)
    query = query.where(SubsetMember.subset_id == subset.id).group_by(Source.id).order_by(count.desc())
    names = ("name", "version", "uri", "sha256", "licence", "citation")
    with db.session() as session:
        rows = session.execute(query).all()
        return [SourceUse(**{name: getattr(row, name) for name in names}, structures=number) for row, number in rows]


def method_uses(db: Database, subset: FrozenSubset, config: Mapping[str, Any]) -> list[MethodUse]:
    """The methods whose labels a run learnt: those of its labels, then its teacher."""
    teacher, labels = config.get("teacher_id"), config.get("method_id")
    with db.session() as session:
        chosen = _methods_of_sources(session, subset) if labels is None else [int(labels)]
        uses = [(number, "labels") for number in chosen] + ([] if teacher is None else [(int(teacher), "teacher")])
        counts = {number: _labelled(session, subset, number) for number, _ in uses}
    return [
        MethodUse(id=number, method=db.method(number), use=use, structures=structures, hessian_rows=rows)
        for number, use in uses
        for structures, rows in (counts[number],)
    ]


def catalogued(db: Database, ids: Int64[np.ndarray, " structures"]) -> list[Catalogued]:
    """What the catalog says of structures, in their order."""
    columns = (
        StructureRow.id,
        StructureRow.external_id,
        StructureRow.chemical_formula_reduced,
        StructureRow.space_group_it_number,
        StructureRow.space_group_symbol,
    )
    wanted, found = ids.tolist(), {}
    with db.session() as session:
        for start in range(0, len(wanted), CHUNK):
            rows = session.execute(select(*columns).where(StructureRow.id.in_(wanted[start : start + CHUNK])))
            for number, external, formula, group, symbol in rows:
                found[number] = Catalogued(
                    external_id=external, formula=formula, space_group=group, space_group_symbol=symbol
                )
    return [found[number] for number in wanted]


def _methods_of_sources(session: Session, subset: FrozenSubset) -> Sequence[int]:
    """Methods whose labels came with the subset's structures."""
    query = select(LabelRow.method_id).join(ShardRow, ShardRow.id == LabelRow.shard_id)
    query = query.join(SubsetMember, SubsetMember.structure_id == LabelRow.structure_id)
    query = query.where(SubsetMember.subset_id == subset.id, ShardRow.kind == "structures")
    return sorted(session.scalars(query.distinct()))


def _labelled(session: Session, subset: FrozenSubset, method: int) -> tuple[int, int]:
    """Structures of the subset that the method has labelled, and Hessian rows."""
    query = select(func.count(LabelRow.structure_id.distinct()), func.sum(LabelRow.hessian_rows))
    query = query.join(SubsetMember, SubsetMember.structure_id == LabelRow.structure_id)
    query = query.where(SubsetMember.subset_id == subset.id, LabelRow.method_id == method, LabelRow.status == "done")
    structures, rows = session.execute(query).one()
    return int(structures), int(rows or 0)
