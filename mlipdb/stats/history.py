"""Where one structure came from, who said what of it, and what speaks against it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from mlipdb.catalog import (
    FindingRow,
    FingerprintTool,
    LabelRow,
    MethodRow,
    Run,
    ShardRow,
    Source,
    StructureFingerprint,
    StructureRow,
    StructureTag,
    Subset,
    SubsetMember,
    Tag,
)
from mlipdb.database import Database
from mlipdb.labels import ENERGY_KINDS
from mlipdb.records import Entry

SHOWN = 20  # of the other frames of a material and of structures alike


@dataclass(frozen=True)
class Other:
    """Another structure: its number, its source's id and its source."""

    id: int
    external_id: str
    source: str


@dataclass(frozen=True)
class Others:
    """How many other structures share something with this one, and the first of them."""

    count: int
    first: tuple[Other, ...]


@dataclass(frozen=True)
class Fingerprint:
    """The structural fingerprint by one tool, and the other structures that have the same."""

    tool: str
    version: str
    value: str
    others: Others


@dataclass(frozen=True)
class Shard:
    """A file that holds arrays of the structure. fault says what is wrong with the file, None where it is there."""

    path: str
    kind: str
    sha256: str
    bytes: int
    records: int
    format_version: int
    sealed_at: str
    fault: str | None


@dataclass(frozen=True, kw_only=True)
class LabelPart:
    """One row of the table of labels: what it has, in which shard, or why it failed."""

    method_id: int
    method: str
    kind: str
    part: int
    status: str
    reason: str | None
    quantities: tuple[str, ...]
    hessian_rows: int
    content_hash: str | None
    shard: str | None


@dataclass(frozen=True)
class Membership:
    """A frozen subset that holds the structure, in which part, and the runs that used it."""

    subset: str
    split: str
    hash: str
    runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class History:
    """All that the catalog knows of one structure; same_content are equal in every coordinate."""

    entry: Entry
    row: int | None
    tags: dict[str, str]
    source: dict[str, Any]
    findings: tuple[dict[str, Any], ...]
    frames: Others
    same_content: Others
    fingerprints: tuple[Fingerprint, ...]
    memberships: tuple[Membership, ...]
    labels: tuple[LabelPart, ...]
    shards: tuple[Shard, ...]

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against the structure or its labels, one sentence each."""
        return tuple(_doubts(self))

    def describe(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"doubts": list(self.doubts)}


def history(db: Database, identity: int) -> History:
    """Everything the catalog says of a structure; NotFoundError where there is none of that number."""
    entry = db.entry(identity)
    with db.session() as session:
        row = session.get_one(StructureRow, identity)
        labels = _labels(session, identity)
        same_material = StructureRow.material_id == row.material_id
        same_content = StructureRow.content_hash == row.content_hash
        return History(
            entry=entry,
            row=row.source_row,
            tags=_tags(session, identity),
            source=_source(session, row.source_id),
            findings=_findings(session, row.source_id),
            frames=_others(session, same_material, identity),
            same_content=_others(session, same_content, identity),
            fingerprints=_fingerprints(session, identity),
            memberships=_memberships(session, identity),
            labels=labels,
            shards=_shards(session, db.path, {entry.shard, *(part.shard for part in labels if part.shard)}),
        )


def _tags(session: Session, identity: int) -> dict[str, str]:
    of_structure = select(Tag.name, Tag.value).join(StructureTag, StructureTag.tag_id == Tag.id)
    rows = session.execute(of_structure.where(StructureTag.structure_id == identity).order_by(Tag.name))
    return {row.name: row.value for row in rows}


def _source(session: Session, source_id: int) -> dict[str, Any]:
    row = session.get_one(Source, source_id)
    return {column.name: getattr(row, column.name) for column in Source.__table__.columns}


def _findings(session: Session, source_id: int) -> tuple[dict[str, Any], ...]:
    rows = session.scalars(select(FindingRow).where(FindingRow.source_id == source_id).order_by(FindingRow.check_name))
    return tuple(
        {"check": row.check_name, "severity": row.severity, "message": row.message, "details": row.details}
        for row in rows
    )


def _others(session: Session, same: Any, identity: int) -> Others:
    """The structures but this one for which a condition holds."""
    chosen = same & (StructureRow.id != identity)
    count = session.scalar(select(func.count()).select_from(StructureRow).where(chosen)) or 0
    facts = select(StructureRow.id, StructureRow.external_id, Source.name).join(Source)
    rows = session.execute(facts.where(chosen).order_by(StructureRow.id).limit(SHOWN)) if count else ()
    return Others(count, tuple(Other(*row) for row in rows))


def _fingerprints(session: Session, identity: int) -> tuple[Fingerprint, ...]:
    row = StructureFingerprint
    mine = select(FingerprintTool, row.value).join(row, row.tool_id == FingerprintTool.id)
    found = []
    for tool, value in session.execute(mine.where(row.structure_id == identity).order_by(FingerprintTool.id)):
        alike: Select[int] = select(row.structure_id).where(row.tool_id == tool.id, row.value == value)
        others = _others(session, StructureRow.id.in_(alike), identity)
        found.append(Fingerprint(tool.tool, tool.version, value, others))
    return tuple(found)


def _memberships(session: Session, identity: int) -> tuple[Membership, ...]:
    mine = select(Subset, SubsetMember.split).join(SubsetMember, SubsetMember.subset_id == Subset.id)
    rows = session.execute(mine.where(SubsetMember.structure_id == identity).order_by(Subset.name)).all()
    runs: dict[int, list[str]] = {}
    used = select(Run.subset_id, Run.name).where(Run.subset_id.in_([subset.id for subset, _ in rows]))
    for subset_id, name in session.execute(used.order_by(Run.name)):
        runs.setdefault(int(subset_id or 0), []).append(name)
    return tuple(Membership(subset.name, split, subset.hash, tuple(runs.get(subset.id, ()))) for subset, split in rows)


def _labels(session: Session, identity: int) -> tuple[LabelPart, ...]:
    rows = session.execute(
        select(LabelRow, MethodRow, ShardRow.path)
        .join(MethodRow, MethodRow.id == LabelRow.method_id)
        .outerjoin(ShardRow, ShardRow.id == LabelRow.shard_id)
        .where(LabelRow.structure_id == identity)
        .order_by(LabelRow.method_id, LabelRow.part)
    )
    return tuple(_part(row, method, path) for row, method, path in rows)


def _part(row: LabelRow, method: MethodRow, path: str | None) -> LabelPart:
    scalars = [name for name in (*ENERGY_KINDS, "band_gap") if getattr(row, name) is not None]
    return LabelPart(
        method_id=method.id,
        method=method.name,
        kind=method.kind,
        part=row.part,
        status=row.status,
        reason=row.reason,
        quantities=(*scalars, *row.arrays.split()),
        hessian_rows=row.hessian_rows,
        content_hash=row.content_hash.hex() if row.content_hash else None,
        shard=path,
    )


def _shards(session: Session, folder: Path, paths: set[str]) -> tuple[Shard, ...]:
    """Shards with a quick look at their files; `mlipdb verify` looks inside."""
    same = ("path", "kind", "sha256", "bytes", "records", "format_version")
    rows = session.scalars(select(ShardRow).where(ShardRow.path.in_(sorted(paths))).order_by(ShardRow.id))
    return tuple(
        Shard(
            **{name: getattr(row, name) for name in same},
            sealed_at=row.sealed_at.isoformat(),
            fault=_fault(folder / row.path, row.bytes),
        )
        for row in rows
    )


def _fault(path: Path, size: int) -> str | None:
    try:
        found = path.stat().st_size
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    return None if found == size else f"has {found} bytes, the catalog says {size}"


def _doubts(found: History) -> list[str]:
    source, name = found.source, found.entry.source
    doubts = [f"source {name}: {finding['severity']}: {finding['message']}" for finding in found.findings]
    if source["state"] != "complete":
        doubts.append(f"source {name} is not whole: its ingest is {source['state']}; repeat the ingest to finish it")
    if not source["licence"]:
        doubts.append(f"source {name} states no licence")
    doubts += [f"shard {shard.path} {shard.fault}; run `mlipdb verify`" for shard in found.shards if shard.fault]
    done = [part for part in found.labels if part.status == "done"]
    failed = [part for part in found.labels if part.status == "failed"]
    doubts += [f"{part.method} could not label it: {part.reason}" for part in failed]
    if not done:
        doubts.append("it has no label")
    elsewhere = {other.source for other in found.same_content.first} - {name}
    if elsewhere:
        doubts.append(f"the same coordinates are in {', '.join(sorted(elsewhere))}: mind a split that has both")
    for fingerprint in found.fingerprints:
        sources = {other.source for other in fingerprint.others.first} - {name}
        if sources:
            doubts.append(f"the same crystal by {fingerprint.tool} is in {', '.join(sorted(sources))}")
    return doubts
