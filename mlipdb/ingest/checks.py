"""Checks of a source while it is ingested: what is odd in its labels, how much of it, and what it probably is."""

from mlipdb.ingest.check_counts import CountChecks
from mlipdb.ingest.check_energies import EnergyChecks
from mlipdb.ingest.check_findings import SEVERITIES
from mlipdb.ingest.check_findings import Finding as Finding
from mlipdb.ingest.check_groups import VolumeSample
from mlipdb.ingest.check_limits import LimitChecks
from mlipdb.ingest.check_summaries import FrameSummaries as FrameSummaries
from mlipdb.ingest.check_summaries import summarise as summarise
from mlipdb.ingest.check_work import WorkChecks


class SourceChecks:
    """Collects the summaries of a source's frames, in file order, in bounded memory, and says what is odd."""

    def __init__(self) -> None:
        self.frames = 0
        self._volumes = VolumeSample()
        self._checks = (LimitChecks(), CountChecks(), WorkChecks(self._volumes), EnergyChecks(self._volumes))

    def add(self, summaries: FrameSummaries) -> None:
        """Take the summaries of further frames."""
        self.frames += len(summaries)
        if len(summaries):
            self._volumes.add(summaries)
            for check in self._checks:
                check.add(summaries)

    def findings(self) -> list[Finding]:
        """What is odd in the frames so far, errors first; asking does not change the checks."""
        found = [finding for check in self._checks for finding in check.findings()]
        return sorted(found, key=lambda finding: (SEVERITIES.index(finding.severity), finding.check))
