"""ASE database in SQLite (``.db``): the blobs of the table systems, read with plain SQL."""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
import orjson
from jaxtyping import Shaped

from mlipdb.errors import IngestError
from mlipdb.ingest.ase_rows import AseRow, RowMeaning, checked_meaning, describe_constraints, merged_info
from mlipdb.ingest.reader import Frame, Rejected

MAGIC = b"SQLite format 3\0"
OLDEST = 5  # the version of ASE's tables that brought the column charge
_RESULTS = ("energy", "free_energy", "forces", "stress", "magmoms", "magmom")
_COLUMNS = (
    "id", "unique_id", "numbers", "positions", "cell", "pbc", "initial_charges", "charge", "constraints",
    "key_value_pairs", "data", *_RESULTS,
)  # fmt: skip
_SCALARS = frozenset(("energy", "free_energy", "magmom"))


class AsedbReader:
    """The rows of one database, by ascending id.

    ASE's columns are eV, Å, eV/Å, eV/Å³ (positive in tension) unless --unit or the metadata say otherwise; a label in
    key_value_pairs or data needs a unit of its own.
    """

    name: ClassVar[str] = "asedb"
    suffixes: ClassVar[tuple[str, ...]] = (".db",)

    def claims(self, path: Path, head: bytes) -> str | None:
        """An SQLite file with ASE's table systems."""
        if not head.startswith(MAGIC) or path.is_dir():
            return None
        try:
            connection = _connect(path)
        except IngestError:
            return None
        try:
            found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'systems'").fetchone()
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            return None
        finally:
            connection.close()
        return "an SQLite file with the table systems of ASE databases" if found[0] else None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the rows by ascending id.

        options: ``keys`` and ``units`` (quantity to name), ``source``, ``file`` (the name of the file in its source).
        """
        connection = _connect(path)
        last = 0
        try:
            meaning = checked_meaning(path, options, array=_array, metadata=_metadata(path, connection))
            for values in connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM systems ORDER BY id"):
                last = values[0]
                yield _frame(dict(zip(_COLUMNS, values, strict=True)), meaning)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise IngestError(
                f"{path}: SQLite cannot read on after row {last} ({error}); the file is cut, damaged or not an ASE "
                "database: fetch it again, or salvage it with `sqlite3 FILE .recover`"
            ) from error
        finally:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    """A connection that cannot write; IngestError where the file is shorter than its header says."""
    with path.open("rb") as file:
        head = file.read(100)
    size = path.stat().st_size
    if not head.startswith(MAGIC) or len(head) < 100:
        raise IngestError(f"{path}: this is no SQLite file, or it was cut; fetch it again, or check the path")
    page = int.from_bytes(head[16:18]) or 1
    pages = int.from_bytes(head[28:32]) if head[24:28] == head[92:96] else 0  # else the count is not kept
    if size < (65536 if page == 1 else page) * pages:
        raise IngestError(
            f"{path}: the file has {size} bytes and its header says {page * pages}; it was cut. Fetch or copy it again"
        )
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)


def _metadata(path: Path, connection: sqlite3.Connection) -> dict[str, Any]:
    """The file's metadata; IngestError where its tables are older than can be read."""
    try:
        about = dict(connection.execute("SELECT name, value FROM information").fetchall())
        version = int(about.get("version") or 0)
        found = orjson.loads(about["metadata"]) if about.get("metadata") else {}
    except (TypeError, ValueError) as error:
        raise IngestError(
            f"{path}: its table information, which holds ASE's version and the metadata, is damaged ({error}): fetch "
            "the file again, or salvage it with `sqlite3 FILE .recover`"
        ) from error
    if version < OLDEST:
        raise IngestError(
            f"{path}: an ASE database of version {version}; from {OLDEST} on they can be read. Rewrite it with "
            f"`ase db {path.name} --insert-into new.db`"
        )
    return found if isinstance(found, dict) else {}


def _frame(values: dict[str, Any], meaning: RowMeaning) -> Frame | Rejected:
    try:
        row = _row(values)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        number = str(values["id"])
        reason = f"the row does not have ASE's layout ({type(error).__name__}: {error})"
        return Rejected(key=number, location=f"row {number}", reason=reason)
    return meaning.frame(row)


def _row(values: dict[str, Any]) -> AseRow:
    names, fixed = describe_constraints(_json(values["constraints"]) or ())
    pbc = int(values["pbc"] or 0)
    return AseRow(
        number=values["id"],
        numbers=np.frombuffer(values["numbers"], "<i4"),
        positions=np.frombuffer(values["positions"], "<f8").reshape(-1, 3),
        cell=np.frombuffer(values["cell"], "<f8").reshape(3, 3),
        pbc=(bool(pbc & 1), bool(pbc & 2), bool(pbc & 4)),
        results={name: _result(name, values[name]) for name in _RESULTS if values[name] is not None},
        info=merged_info(_json(values["key_value_pairs"]) or {}, _data(values["data"])),
        unique_id=values["unique_id"],
        charge=None if values["initial_charges"] is None else round(float(values["charge"] or 0.0), 6),
        constraints=names,
        fixed_atoms=fixed,
    )


def _result(name: str, value: Any) -> Any:
    if name in _SCALARS:
        return float(value)
    array = np.frombuffer(value, "<f8")
    return array.reshape(-1, 3) if name == "forces" else array


def _json(text: str | None) -> Any:
    """A text column; ASE once encoded some of them twice."""
    value: Any = text
    while isinstance(value, str):
        value = orjson.loads(value) if value else None
    return value


def _data(stored: bytes | str | None) -> dict[str, Any]:
    """The column data: JSON text up to version 8, then numbers followed by JSON that points at them."""
    if not stored:
        return {}
    if isinstance(stored, str):
        found = _json(stored)
    else:
        start = int.from_bytes(stored[:8], "little")
        found = _pointed(orjson.loads(stored[start:]), stored)
    return found if isinstance(found, dict) else {}


def _pointed(value: Any, stored: bytes) -> Any:
    """Replace the pointers to arrays, in a mapping and the mappings in it."""
    if not isinstance(value, dict):
        return value
    if "__ndarray__" in value:
        shape, kind, offset = value["__ndarray__"]
        if np.dtype(kind).kind not in "fiub":
            return None
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(stored, np.dtype(kind).newbyteorder("<"), count, offset).reshape(shape)
    return {name: _pointed(inner, stored) for name, inner in value.items()}


def _array(value: Any) -> Shaped[np.ndarray, "..."] | Any:
    """An array as numpy, whether it came as a list, in JSON or as numbers; another value as it is."""
    if isinstance(value, dict) and "__ndarray__" in value:
        shape, kind, numbers = value["__ndarray__"]
        return np.array(numbers, dtype=kind).reshape(shape)
    return np.asarray(value) if isinstance(value, list) else value
