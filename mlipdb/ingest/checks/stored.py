"""Findings of the checks: kept with their source, or a reason to refuse it."""

import hashlib
from collections.abc import Collection, Mapping, Sequence, Set
from itertools import count
from typing import Any

from sqlalchemy import select

from mlipdb.catalog import Source
from mlipdb.catalog.finding import FindingRow
from mlipdb.catalog.rows import now
from mlipdb.database import Database
from mlipdb.errors import IngestError
from mlipdb.ingest.checks.finding import Finding


def store_findings(
    db: Database, source_id: int, findings: Sequence[Finding], *, files: Sequence[str], stopped: bool = False
) -> None:
    """Keep what was found in files of a source; what was found in others of its files, which were not read now, stays.

    An earlier ingest's findings are replaced where it read the same files, or where this one read every file of the
    source. details say of each finding in how many files, from which one on; a check's second one is numbered. Those of
    an ingest that stopped in its last file replace no others but of an ingest that stopped earlier.
    """
    read = {"count": len(files), "first": min(files), "sha256": _digest(files)} if files else {}
    read |= {"stopped": True} if stopped else {}
    with db.write() as session:
        every = set(session.get_one(Source, source_id).options.get("files", ())) <= set(files)
        rows = session.scalars(select(FindingRow).where(FindingRow.source_id == source_id)).all()
        every = every and not stopped
        kept = [row for row in rows if not every and not _replaced(row.details.get("files", read), read, files)]
        told = {row.message for row in kept}
        findings = [finding for finding in findings if not stopped or finding.message not in told]
        for row in set(rows).difference(kept):
            session.delete(row)
        session.flush()
        names = _numbered([finding.check for finding in findings], taken={row.check_name for row in kept})
        session.add_all(
            FindingRow(
                source_id=source_id,
                check_name=name,
                severity=finding.severity,
                message=finding.message,
                details=finding.details | {"files": read},
                created_at=now(),
            )
            for name, finding in zip(names, findings, strict=True)
        )


def _replaced(before: Mapping[str, Any], read: Mapping[str, Any], files: Collection[str]) -> bool:
    """Whether an earlier reading of files is within this one."""
    within = before.get("first") in files and before.get("count", 0) <= len(files)
    return before == read or bool(before.get("stopped") and within)


def _digest(names: Sequence[str]) -> str:
    """The same for the same files; their names alone may be many."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def _numbered(names: Sequence[str], *, taken: Set[str]) -> list[str]:
    """The names, with the first free number behind those that are taken or were there before."""
    found: list[str] = []
    for name in names:
        choices = (name if number == 1 else f"{name} {number}" for number in count(1))
        found.append(next(choice for choice in choices if choice not in taken and choice not in found))
    return found


def refuse(source: str, findings: Sequence[Finding]) -> None:
    """Raise IngestError that lists the findings that speak against the data; a note does not."""
    against = [finding for finding in findings if finding.severity != "note"]
    if against:
        listed = "".join(f"\n  {finding.severity}: {finding.check}: {finding.message}" for finding in against)
        raise IngestError(
            f"source {source!r} has {len(against)} findings and --strict refuses them; nothing was stored. Mend the "
            f"source, or leave --strict away to take it with the findings noted:{listed}"
        )
