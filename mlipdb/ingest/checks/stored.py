"""Findings of the checks: kept with their source, or a reason to refuse it."""

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import delete

from mlipdb.catalog.finding import FindingRow
from mlipdb.catalog.rows import now
from mlipdb.database import Database
from mlipdb.errors import IngestError
from mlipdb.ingest.checks.finding import Finding


def store_findings(db: Database, source_id: int, findings: Sequence[Finding]) -> None:
    """Put findings in the place of what an earlier ingest found in the source; a check's second one is numbered."""
    names = _numbered([finding.check for finding in findings])
    with db.write() as session:
        session.execute(delete(FindingRow).where(FindingRow.source_id == source_id))
        session.add_all(
            FindingRow(
                source_id=source_id,
                check_name=name,
                severity=finding.severity,
                message=finding.message,
                details=finding.details,
                created_at=now(),
            )
            for name, finding in zip(names, findings, strict=True)
        )


def _numbered(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that were there before."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} {seen[name]}")
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
