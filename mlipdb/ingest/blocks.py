"""What is handed to a worker process at a time: a few hundred records of one file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mlipdb.errors import IngestError
from mlipdb.ingest.json_records import RawRecord
from mlipdb.ingest.reader import Frame, Reader, Rejected

RECORDS = 512  # in a block, which a worker is busy with for some 100 ms
BYTES = 4 << 20  # of text in a block, so that large records make small blocks


@dataclass(frozen=True)
class FrameBlock:
    """Records that the reader has parsed already."""

    file: str
    items: tuple[Frame | Rejected, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def location(self) -> str:
        """Where its first record is."""
        return self.items[0].location


@dataclass(frozen=True)
class RawBlock:
    """Records as they stand in a file, to be parsed by whoever gets the block; path is for messages."""

    file: str
    path: Path
    records: tuple[RawRecord, ...]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def location(self) -> str:
        """Where its first record is."""
        return f"byte {self.records[0][2]}"


Block = FrameBlock | RawBlock


@runtime_checkable
class SplitReader(Protocol):
    """A reader whose format can be cut into records much faster than they are parsed; a second, quicker way in."""

    def raw_records(self, path: Path, options: Mapping[str, Any]) -> Iterator[RawRecord]:
        """The records of a file in file order, unparsed; raises IngestError like frames."""
        ...

    def parse(self, record: RawRecord, path: Path) -> Frame | Rejected:
        """What frames would have yielded for a record; raises IngestError where the file is damaged inside of it."""
        ...


def blocks(reader: Reader, path: Path, *, file: str, options: Mapping[str, Any]) -> Iterator[Block]:
    """The records of a file in blocks, the same ones in every run; file is its name in the source.

    Where the reader raises IngestError, everything before that place has been yielded.
    """
    if isinstance(reader, SplitReader):
        for records in _grouped(reader.raw_records(path, options), size=lambda record: len(record[3])):
            yield RawBlock(file, path, records)
    else:
        for items in _grouped(reader.frames(path, options), size=_size):
            yield FrameBlock(file, items)


def _grouped(items: Iterator[Any], *, size: Callable[[Any], int]) -> Iterator[tuple[Any, ...]]:
    """Items in groups; the last one before an IngestError is yielded ahead of it."""
    group: list[Any] = []
    held, problem = 0, None
    while problem is None:
        try:
            item = next(items)
        except StopIteration:
            break
        except IngestError as error:
            problem = error
            break
        group.append(item)
        held += size(item)
        if len(group) >= RECORDS or held >= BYTES:
            yield tuple(group)
            group, held = [], 0
    if group:
        yield tuple(group)
    if problem is not None:
        raise problem


def _size(item: Frame | Rejected) -> int:
    """About how many bytes a parsed record holds."""
    if isinstance(item, Rejected):
        return len(item.reason)
    rows = item.label.hessian_rows if item.label is not None else None
    return 80 * len(item.structure) + (0 if rows is None else rows.nbytes)
