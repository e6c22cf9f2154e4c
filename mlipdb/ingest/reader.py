"""What a reader is: one file format to a lazy stream of frames in mlipdb's units."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from mlipdb.labels import Label
from mlipdb.structures import Structure

ROW_LIMIT = 2**63  # what the catalog holds


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame:
    """One record of a source: its structure, its label if it has one, and where it came from.

    external_id is unique in the source; material names what frames belong together; location says where in the file
    (``byte 123`` or ``frame 17``). A label that names its own method (``label.method``) is stored under it, others
    under the source's. tags are words of the source to ask for, such as ``{"subset": "SPICE Dipeptides"}`` or the
    official ``{"split": "train"}``; row is the record's position where official splits count by it.
    """

    structure: Structure
    label: Label | None
    external_id: str
    material: str
    location: str
    tags: Mapping[str, str] = field(default_factory=dict)
    row: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A record that could not be taken: its key if it is known, where it is, and the reason."""

    key: str
    location: str
    reason: str


def checked_row(value: Any) -> int:
    """The position of a record as a file of ours states it. Raises ValueError for what is none."""
    row = int(value)
    if not 0 <= row < ROW_LIMIT:
        raise ValueError(f"row {value} is no position")
    return row


@runtime_checkable
class Reader(Protocol):
    """A file format. frames is lazy: it never holds the whole file.

    A record that does not make sense is yielded as Rejected and reading goes on; a file that cannot be read further
    raises IngestError with the byte or line, after every record before it has been yielded.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    def claims(self, path: Path, head: bytes) -> str | None:
        """Why a file (with its first plain bytes) or a directory (b"") is of this format; None where it is not."""
        ...

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the records of one file in file order."""
        ...
