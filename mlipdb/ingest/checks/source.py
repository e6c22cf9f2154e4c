"""All checks of one source together, fed while it is read."""

from mlipdb.ingest.checks.counts import CountChecks
from mlipdb.ingest.checks.energies import EnergyChecks
from mlipdb.ingest.checks.finding import SEVERITIES, Finding
from mlipdb.ingest.checks.groups import VolumeSample
from mlipdb.ingest.checks.limits import LimitChecks
from mlipdb.ingest.checks.summaries import FrameSummaries
from mlipdb.ingest.checks.work import WorkChecks


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
