"""A finding: one thing that is odd in a source."""

from dataclasses import dataclass, field
from typing import Any

SEVERITIES = ("error", "warning", "note")  # the worst first


@dataclass(frozen=True)
class Finding:
    """What one check found in a source.

    severity is ``error`` where the labels mean something else than they say (a wrong unit, sign or kind of energy),
    ``warning`` where they may be right, and ``note`` where nothing is wrong but something is to know. message says
    what, how many, the worst case and the next step; details hold the numbers, as JSON.
    """

    check: str
    severity: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)
