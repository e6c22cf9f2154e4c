"""ASE db: an SQLite file that ase.db opens, searches and shows."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from mlipdb.export.ase_rows import ase_fields
from mlipdb.export.exporter import ExportItem, ExportOptions, ExportReport, Tally

PAIRS = ("external_id", "material", "source", "split", "band_gap")


class AsedbExporter:
    """One row a structure, written by ASE itself; `ase db FILE source=mptrj` searches by the names in PAIRS.

    What describes the whole file is the database's metadata.
    """

    name: ClassVar[str] = "asedb"
    suffixes: ClassVar[tuple[str, ...]] = (".db",)
    in_file: ClassVar[bool] = True

    def write(self, path: Path, items: Iterator[ExportItem], options: ExportOptions) -> ExportReport:
        """Write the rows in one transaction."""
        import ase.db
        from ase.db.row import AtomsRow

        tally = Tally()
        with ase.db.connect(path, use_lock_file=False) as database:  # type: ignore[no-untyped-call]  # ASE has no types
            for item in items:
                row = ase_fields(item, options, tally)
                pairs = {name: row.data[name] for name in PAIRS if _searchable(row.data.get(name))}
                fields = AtomsRow(row.fields)  # type: ignore[no-untyped-call]  # as above
                database.write(fields, key_value_pairs=pairs, data=row.data)
                tally.written += 1
            database.metadata = options.about
        _set_times(path)
        return tally.report()


def _searchable(value: Any) -> bool:
    """ASE takes numbers, and texts that do not look like a number or a truth value."""
    if not isinstance(value, str):
        return value is not None
    if value in ("True", "False") or not value:
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def _set_times(path: Path) -> None:
    """ASE writes the present time into each row, and equal rows shall give equal files."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE systems SET mtime = ctime")
        connection.commit()
        connection.execute("VACUUM")
