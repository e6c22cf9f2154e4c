"""What each method has labelled; and labels of a method taken out again."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from mlipdb.catalog import LabelRow, MethodRow, Run, ShardRow
from mlipdb.catalog.dropping import DroppedLabels, drop_label_rows, labels_with_structures
from mlipdb.catalog.rows import method_of
from mlipdb.database import Database
from mlipdb.errors import ConfigError
from mlipdb.labelling.disagreement import clear_disagreements
from mlipdb.labels import ENERGY_KINDS, Method
from mlipdb.methods import find_method

REASONS = 10  # of failures, the commonest


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What one method has labelled: structures with a label, failed ones, Hessian rows of so many structures.

    with_structures says that the labels came with the structures, in their shards; shards and bytes are those of labels
    alone.
    """

    id: int
    method: Method
    structures: int
    failed: int
    hessian_rows: int
    with_rows: int
    with_structures: bool
    shards: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class HoldingDetails:
    """A holding, how many structures have each quantity, why others failed, and which runs used it."""

    holding: Holding
    quantities: dict[str, int]
    reasons: tuple[tuple[str, int], ...]
    runs: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def list_holdings(db: Database) -> list[Holding]:
    """Every method that has labels or failures, by number."""
    with db.session() as session:
        return _holdings(session, None)


def show_holding(db: Database, name: str) -> HoldingDetails:
    """One method by name or number, in detail. Raises NotFoundError, or ConfigError for a name of several methods."""
    method = find_method(db, name)
    with db.session() as session:
        found = _holdings(session, method)
        empty = Holding(
            id=method, method=method_of(session.get_one(MethodRow, method)), structures=0, failed=0, hessian_rows=0,
            with_rows=0, with_structures=False, shards=0, bytes=0,
        )  # fmt: skip
        return HoldingDetails(
            holding=found[0] if found else empty,
            quantities=_quantities(session, method),
            reasons=_reasons(session, method),
            runs=_runs(session, method),
        )


def drop_labels(db: Database, name: str) -> DroppedLabels:
    """Take out the labels and failures of a method, by name or number; `mlipdb gc` then removes their files.

    The method keeps its number, since runs name it. Raises ConfigError for labels that came with the structures.
    """
    method = find_method(db, name)
    with db.write() as session:
        inside = labels_with_structures(session, method)
        if inside:
            raise ConfigError(
                f"{inside} labels of method {name!r} came with the structures and are in their shards; only labels "
                f"that `mlipdb label` made can be dropped (`mlipdb labels list` says which those are)"
            )
        clear_disagreements(session, method)
        return drop_label_rows(session, method)


def _holdings(session: Session, method: int | None) -> list[Holding]:
    done, failed = LabelRow.status == "done", LabelRow.status == "failed"
    counts = (
        _count(done & (LabelRow.part == 0)),
        _count(failed),
        func.sum(LabelRow.hessian_rows),
        func.count(case((LabelRow.hessian_rows > 0, LabelRow.structure_id)).distinct()),
    )
    query = select(LabelRow.method_id, *counts).group_by(LabelRow.method_id).order_by(LabelRow.method_id)
    rows = session.execute(query if method is None else query.where(LabelRow.method_id == method)).all()
    methods = {row.id: method_of(row) for row in session.scalars(select(MethodRow))}
    places = {number: _places(session, number) for number, *_ in rows}
    return [
        Holding(
            id=number,
            method=methods[number],
            structures=int(labelled),
            failed=int(fails),
            hessian_rows=int(hessian_rows),
            with_rows=int(with_rows),
            with_structures="structures" in places[number],
            shards=places[number].get("labels", (0, 0))[0],
            bytes=places[number].get("labels", (0, 0))[1],
        )
        for number, labelled, fails, hessian_rows, with_rows in rows
    ]


def _count(condition: Any) -> Any:
    """How many rows fulfil a condition, as SQL."""
    return func.sum(case((condition, 1), else_=0))


def _places(session: Session, method: int) -> dict[str, tuple[int, int]]:
    """Shards and bytes of each kind of shard in which a method's labels are."""
    used = select(LabelRow.shard_id).where(LabelRow.method_id == method, LabelRow.shard_id.is_not(None)).distinct()
    query = select(ShardRow.kind, func.count(), func.sum(ShardRow.bytes)).where(ShardRow.id.in_(used))
    return {kind: (count, int(size)) for kind, count, size in session.execute(query.group_by(ShardRow.kind))}


def _quantities(session: Session, method: int) -> dict[str, int]:
    """How many structures have each quantity in part 0, rows wherever they are."""
    first = (LabelRow.method_id == method, LabelRow.status == "done", LabelRow.part == 0)
    scalars = (*ENERGY_KINDS, "band_gap")
    known = [func.count(getattr(LabelRow, name)) for name in scalars]
    found = dict(zip(scalars, session.execute(select(*known).where(*first)).one(), strict=True))
    query = select(LabelRow.arrays, func.count()).where(*first).group_by(LabelRow.arrays)
    for arrays, count in session.execute(query):
        for name in arrays.split():
            found[name] = found.get(name, 0) + count
    return {name: count for name, count in found.items() if count and name != "hessian_rows"}


def _reasons(session: Session, method: int) -> tuple[tuple[str, int], ...]:
    count = func.count().label("count")
    query = select(LabelRow.reason, count).where(LabelRow.method_id == method, LabelRow.status == "failed")
    rows = session.execute(query.group_by(LabelRow.reason).order_by(count.desc(), LabelRow.reason).limit(REASONS))
    return tuple((reason or "no reason given", number) for reason, number in rows)


def _runs(session: Session, method: int) -> tuple[str, ...]:
    """The runs whose plan names the method, as teacher or as maker of the labels."""
    rows: Iterable[Any] = session.execute(select(Run.name, Run.config).order_by(Run.name))
    return tuple(name for name, config in rows if method in (config.get("teacher_id"), config.get("method_id")))
