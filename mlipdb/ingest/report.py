"""What an ingest did, for the caller and as JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any

from mlipdb.ingest.checks import Finding
from mlipdb.records import RejectedRecord


@dataclass(kw_only=True)
class IngestReport:
    """What an ingest did. taken + duplicates + quarantined = records read; already_taken is a part of duplicates.

    structures are those that the source now has in the catalog. rejected holds the first records of the quarantine,
    findings what the checks found odd in the records read so far.
    """

    source: str
    taken: int = 0
    duplicates: int = 0
    quarantined: int = 0
    already_taken: int = 0
    structures: int = 0
    state: str = "ingesting"
    seconds: float = 0.0
    sha256: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rejected: list[RejectedRecord] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def records(self) -> int:
        """Records read."""
        return self.taken + self.duplicates + self.quarantined


def describe(report: IngestReport) -> dict[str, Any]:
    """The report as plain JSON data."""
    return {
        "source": report.source,
        "taken": report.taken,
        "duplicates": report.duplicates,
        "quarantined": report.quarantined,
        "already_taken": report.already_taken,
        "structures": report.structures,
        "state": report.state,
        "seconds": round(report.seconds, 3),
        "sha256": report.sha256,
        "notes": report.notes,
        "findings": [asdict(finding) for finding in report.findings],
        "rejected": [vars(record) for record in report.rejected],
    }
