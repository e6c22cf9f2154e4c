"""Parquet files batch by batch: which columns they must have, and errors that name the file."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlipdb.errors import IngestError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = b"PAR1"
BATCH = 1024  # rows in memory together


def columns_of(path: Path, head: bytes) -> frozenset[str]:
    """Names of a Parquet file's columns; none where it is no Parquet file or cannot be opened."""
    if not head.startswith(MAGIC) or path.is_dir():
        return frozenset()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return frozenset(file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError):  # ValueError: names that are no text
        return frozenset()


def batches(
    path: Path, *, needed: Iterable[str], wanted: Iterable[str]
) -> Iterator[tuple[int, "pa.RecordBatch", frozenset[str]]]:
    """The number of the first row, the rows, and the names of the columns, of one batch after the other.

    Columns that are wanted and not there are left out. Raises IngestError where a needed one is missing or the file
    cannot be read on.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path, memory_map=False, page_checksum_verification=True) as file:
            present = file.schema_arrow.names
            _check(path, present, needed)
            columns = [name for name in (*needed, *wanted) if name in present]
            for batch in file.iter_batches(batch_size=BATCH, columns=columns):
                yield row, batch, frozenset(columns)
                row += len(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IngestError(
            f"{path}: cannot be read on after row {row} ({error}); the file is cut or damaged: fetch it again and "
            "repeat the command, which skips what it has"
        ) from error


def _check(path: Path, present: list[str], needed: Iterable[str]) -> None:
    for name in needed:
        if name not in present:
            raise IngestError(
                f"{path}: there is no column {name!r}.{did_you_mean(name, present)} It has: {', '.join(present[:40])}. "
                "Give the whole file, with the columns of its schema"
            )
