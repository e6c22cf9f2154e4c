"""What is handed to a worker process at a time: a few hundred records of one file."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mlipdb.errors import IngestError
from mlipdb.ingest.json_records import RawRecord, SizedRecord
from mlipdb.ingest.packing import HEAD, packing_of
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

    def slim(self) -> "FrameBlock":
        """The block: its frames are nowhere else."""
        return self

    @property
    def location(self) -> str:
        """Where its first record is."""
        return self.items[0].location


Stamp = tuple[int, int]  # size and time of the last change of a file


@dataclass(frozen=True)
class RawBlock:
    """Records as they stand in a file, to be parsed by whoever gets the block; path is for messages.

    With a stamp, records are slices of the file as it was then, so that where they stand is enough: it is all that a
    block takes along to another process.
    """

    file: str
    path: Path
    records: tuple[RawRecord, ...] | tuple[SizedRecord, ...]
    stamp: Stamp | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self.slim())

    def slim(self) -> "RawBlock":
        """The block with sizes instead of bytes where the file can be read again."""
        if self.stamp is None or isinstance(self.records[0][3], int):
            return self
        sized = tuple((group, key, at, len(data)) for group, key, at, data in self.records if isinstance(data, bytes))
        return replace(self, records=sized)

    @property
    def location(self) -> str:
        """Where its first record is."""
        return f"byte {self.records[0][2]}"

    def whole_records(self) -> Iterator[RawRecord]:
        """The records with their bytes; IngestError where the file has changed since they were found."""
        if isinstance(self.records[0][3], bytes):
            yield from self.records
            return
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise IngestError(
                f"{self.path} cannot be read any more, before {self.location} ({error.strerror}); "
                "put it back and repeat the command"
            ) from error
        with file:
            if _stamp(os.fstat(file.fileno())) != self.stamp:
                raise IngestError(
                    f"{self.path} has changed while it was read, before {self.location}; let nothing write to it and "
                    "repeat the command"
                )
            first, last = self.records[0], self.records[-1]
            file.seek(start := first[2])
            text = file.read(last[2] + last[3] - start)  # they follow one another, so in one piece
            for group, key, offset, size in self.records:
                yield group, key, offset, text[offset - start : offset - start + size]


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns


def _plain_stamp(reader: Reader, path: Path) -> Stamp | None:
    """The stamp of a file whose records are slices of it; None where they are unpacked or made."""
    if not getattr(reader, "raw_is_slice", False):
        return None
    with path.open("rb") as file:
        return _stamp(os.fstat(file.fileno())) if packing_of(file.read(HEAD)) is None else None


Block = FrameBlock | RawBlock


@runtime_checkable
class SplitReader(Protocol):
    """A reader whose format can be cut into records much faster than they are parsed; a second, quicker way in.

    It may have an attribute raw_is_slice, True where a raw record's bytes are the plain file's from its offset on.
    """

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
        stamp = _plain_stamp(reader, path)
        for records in _grouped(reader.raw_records(path, options), size=lambda record: len(record[3])):
            yield RawBlock(file, path, records, stamp)
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
