"""Findings of the checks: kept with their source, or a reason to refuse it."""

from collections.abc import Sequence

from sqlalchemy import delete

from mlipdb.catalog.finding import FindingRow
from mlipdb.catalog.rows import now
from mlipdb.database import Database
from mlipdb.errors import IngestError
from mlipdb.ingest.checks import Finding


def store_findings(db: Database, source_id: int, findings: Sequence[Finding]) -> None:
    """Put findings in the place of what an earlier ingest found in the source."""
    with db.write() as session:
        session.execute(delete(FindingRow).where(FindingRow.source_id == source_id))
        session.add_all(
            FindingRow(
                source_id=source_id,
                check_name=finding.check,
                severity=finding.severity,
                message=finding.message,
                details=finding.details,
                created_at=now(),
            )
            for finding in findings
        )


def refuse(source: str, findings: Sequence[Finding]) -> None:
    """Raise IngestError that lists the findings, if there are any."""
    if findings:
        listed = "".join(f"\n  {finding.severity}: {finding.check}: {finding.message}" for finding in findings)
        raise IngestError(
            f"source {source!r} has {len(findings)} findings and --strict refuses them; nothing was stored. Mend the "
            f"source, or leave --strict away to take it with the findings noted:{listed}"
        )
