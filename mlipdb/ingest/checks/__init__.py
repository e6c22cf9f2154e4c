"""Checks of a source while it is ingested: what is odd in its labels, how much of it, and what it probably is."""

from mlipdb.ingest.checks.finding import Finding as Finding
from mlipdb.ingest.checks.source import SourceChecks as SourceChecks
from mlipdb.ingest.checks.summaries import FrameSummaries as FrameSummaries
from mlipdb.ingest.checks.summaries import summarise as summarise
