"""What is known of a source: by sources.toml, and by the catalog once it was ingested."""

from typing import Any

from sqlalchemy import distinct, func, select
from sqlalchemy.orm import Session

from mlipdb.catalog import Duplicate, FindingRow, LabelRow, MethodRow, Source, StructureRow
from mlipdb.database import Database
from mlipdb.errors import NotFoundError, did_you_mean
from mlipdb.ingest.published import published_sources


def list_sources(db: Database | None) -> list[dict[str, Any]]:
    """Every published source and every source of the database, one mapping each, published ones first.

    ingested is None or the counts and the state that the database has of it.
    """
    stored = {} if db is None else _stored(db)
    names = [*published_sources(), *(name for name in stored if name not in published_sources())]
    return [_summary(name, stored.get(name)) for name in names]


def describe_source(db: Database | None, name: str) -> dict[str, Any]:
    """Everything known of a source, as plain JSON data: published, ingested, files, methods, findings.

    Raises NotFoundError where neither sources.toml nor the database has the name.
    """
    published = published_sources().get(name)
    ingested = None if db is None else _ingested(db, name)
    if published is None and ingested is None:
        known = [item["name"] for item in list_sources(db)]
        raise NotFoundError(f"no source is called {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}")
    return {"name": name, "published": published and published.describe(), "ingested": ingested}


def _stored(db: Database) -> dict[str, Source]:
    with db.session() as session:
        return {row.name: row for row in session.scalars(select(Source).order_by(Source.name))}


def _summary(name: str, row: Source | None) -> dict[str, Any]:
    published = published_sources().get(name)
    return {
        "name": name,
        "title": published.title if published else None,
        "reader": row.reader if row else published.reader if published else None,
        "theory": published.theory if published else None,
        "frames": published.frames if published else None,
        "fetchable": published.fetchable if published else False,
        "ingested": row and {"state": row.state, "structures": row.taken, "quarantined": row.quarantined},
    }


def _ingested(db: Database, name: str) -> dict[str, Any] | None:
    with db.session() as session:
        row = session.scalar(select(Source).where(Source.name == name))
        if row is None:
            return None
        labels = (
            select(MethodRow.name, MethodRow.functional, MethodRow.code, func.count())
            .join(LabelRow, LabelRow.method_id == MethodRow.id)
            .join(StructureRow, StructureRow.id == LabelRow.structure_id)
            .where(StructureRow.source_id == row.id, LabelRow.part == 0, MethodRow.kind == "dft")
            .group_by(MethodRow.id)
            .order_by(func.count().desc(), MethodRow.name)
        )
        methods = [
            {"name": method, "functional": functional, "code": code, "labels": count}
            for method, functional, code, count in session.execute(labels)
        ]
        found = session.scalars(select(FindingRow).where(FindingRow.source_id == row.id).order_by(FindingRow.id))
        findings = [
            {"check": item.check_name, "severity": item.severity, "message": item.message, "details": item.details}
            for item in found
        ]
        copies = _copies(session, row.id)
    columns = ("reader", "version", "uri", "sha256", "licence", "citation", "state", "duplicates", "quarantined")
    facts = {column: getattr(row, column) for column in columns}
    options = dict(row.options)
    files = [{"name": file} | facts for file, facts in options.pop("files", {}).items()]
    return facts | {
        "structures": row.taken,
        "copies": copies,
        "ingested_at": row.created_at.isoformat(),
        "options": options,
        "files": files,
        "methods": methods,
        "findings": findings,
    }


def _copies(session: Session, source: int) -> list[dict[str, Any]]:
    """How many frames were left out because each other source has them, most first."""
    count = func.count(distinct(Duplicate.external_id))
    query = select(Source.name, count).join(StructureRow, StructureRow.source_id == Source.id)
    query = query.join(Duplicate, Duplicate.structure_id == StructureRow.id).where(Duplicate.source_id == source)
    found = session.execute(query.group_by(Source.name).order_by(count.desc(), Source.name))
    return [{"of": name, "frames": frames} for name, frames in found]
