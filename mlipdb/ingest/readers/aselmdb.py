"""aselmdb: an ASE database in LMDB, as sAlex, OMat24 and OMol25 are published; decoded without its own package."""

import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson

from mlipdb.errors import IngestError
from mlipdb.ingest.ase_rows import AseRow, RowMeaning, checked_meaning, describe_constraints, merged_info
from mlipdb.ingest.json_records import RawRecord
from mlipdb.ingest.lmdb_pages import LmdbFile, is_lmdb
from mlipdb.ingest.reader import Frame, Rejected

_ARRAY = "__ndarray__"
_RESULTS = ("energy", "free_energy", "forces", "stress", "magmoms", "magmom", "energies")


class AselmdbReader:
    """Rows under the keys 1, 2, …: zlib over JSON in which an array is ``{"__ndarray__": [shape, dtype, numbers]}``.

    eV, Å, eV/Å, eV/Å³ (positive in tension) unless --unit or the file's metadata say otherwise. Charge and spin
    multiplicity are taken from wherever a row has them.
    """

    name: ClassVar[str] = "aselmdb"
    suffixes: ClassVar[tuple[str, ...]] = (".aselmdb", ".lmdb")

    def claims(self, path: Path, head: bytes) -> str | None:
        """An LMDB file that holds ASE's nextid."""
        if not is_lmdb(head) or path.is_dir():
            return None
        try:
            with LmdbFile(path) as file:
                found = file.get(b"nextid") is not None
        except (IngestError, OSError):
            return "an LMDB file named .aselmdb" if path.suffix == ".aselmdb" else None
        return "an LMDB file with the key nextid of ASE databases" if found else None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        """Yield the rows by ascending id, without those that were deleted.

        options: ``keys`` and ``units`` (quantity to name), ``source``, ``file`` (the name of the file in its source).
        """
        for record in self.raw_records(path, options):
            yield self.parse(record, path)

    def raw_records(self, path: Path, options: Mapping[str, Any]) -> Iterator[RawRecord]:
        """The packed rows, each with what the file and the user say of all of them; no bytes for one that is gone."""
        with LmdbFile(path) as file:
            facts = _facts(file, options)
            _meaning(path, facts)  # an unknown key or unit is an error before the first row
            for number in _numbers(file):
                yield facts, str(number), number, file.get(b"%d" % number) or b""

    def parse(self, record: RawRecord, path: Path) -> Frame | Rejected:
        """What a row says; raises IngestError where a unit or a key is for the user to say."""
        facts, key, number, data = record
        if not data:
            reason = "the row is missing, though the file's deleted_ids do not list it; it was lost in writing"
            return Rejected(key=key, location=f"row {number}", reason=reason)
        return _frame(number, data, _meaning(path, facts))


def _facts(file: LmdbFile, options: Mapping[str, Any]) -> str:
    """What the meaning of a row depends on besides the row, as JSON, so that another process can parse it."""
    told = {name: dict(options.get(name, {})) for name in ("keys", "units")}
    named = {name: options[name] for name in ("source", "file") if name in options}
    return orjson.dumps({"options": told | named, "metadata": _metadata(file)}).decode()


@lru_cache(maxsize=8)
def _meaning(path: Path, facts: str) -> RowMeaning:
    found = orjson.loads(facts)
    return checked_meaning(path, found["options"], array=_array, metadata=found["metadata"])


def _frame(number: int, data: bytes, meaning: RowMeaning) -> Frame | Rejected:
    try:
        fields = orjson.loads(zlib.decompress(data))
        row = _row(number, fields)
    except (zlib.error, orjson.JSONDecodeError) as error:
        return Rejected(key=str(number), location=f"row {number}", reason=f"its bytes are damaged ({error})")
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = f"the row does not have ASE's layout ({type(error).__name__}: {error})"
        return Rejected(key=str(number), location=f"row {number}", reason=reason)
    return meaning.frame(row)


def _row(number: int, fields: dict[str, Any]) -> AseRow:
    constraints, fixed = describe_constraints(fields.get("constraints") or ())
    periodic = fields.get("pbc")
    a, b, c = (False, False, False) if periodic is None else _array(periodic)
    initial = fields.get("initial_charges")
    return AseRow(
        number=number,
        numbers=_array(fields["numbers"]),
        positions=_array(fields["positions"]),
        cell=_array(fields["cell"]) if "cell" in fields else None,
        pbc=(bool(a), bool(b), bool(c)),
        results={name: fields[name] for name in _RESULTS if fields.get(name) is not None},
        info=merged_info(fields.get("key_value_pairs") or {}, fields.get("data") or {}),
        unique_id=fields.get("unique_id"),
        charge=None if initial is None else round(float(np.sum(_array(initial))), 6),
        constraints=constraints,
        fixed_atoms=fixed,
    )


def _array(value: Any) -> Any:
    """An encoded array as numpy; another value as it is."""
    if isinstance(value, dict) and _ARRAY in value:
        shape, kind, numbers = value[_ARRAY]
        if kind == "float64" or np.dtype(kind).kind in "fiub":
            return np.array(numbers, dtype=kind).reshape(shape)
        raise ValueError(f"an array of {kind}")
    return np.asarray(value) if isinstance(value, list) else value


def _numbers(file: LmdbFile) -> Iterator[int]:
    """The ids of the rows; IngestError where the file's own count cannot be."""
    last, deleted = _load(file, b"nextid"), _load(file, b"deleted_ids") or []
    if not isinstance(last, int) or not isinstance(deleted, list):
        raise IngestError(
            f"{file.path}: the key nextid is {last!r}; expected a number. This is no ASE database, or its writing was "
            "not finished: fetch or write it again"
        )
    if last - 1 > file.entries + len(deleted):
        raise IngestError(
            f"{file.path}: nextid says {last - 1} rows, the file has {file.entries} entries and {len(deleted)} "
            "deleted ones; the file is damaged: fetch it again"
        )
    gone = set(deleted)
    return (number for number in range(1, last) if number not in gone)


def _metadata(file: LmdbFile) -> dict[str, Any]:
    found = _load(file, b"metadata")
    return found if isinstance(found, dict) else {}


def _load(file: LmdbFile, key: bytes) -> Any:
    data = file.get(key)
    try:
        return None if data is None else orjson.loads(zlib.decompress(data))
    except (zlib.error, orjson.JSONDecodeError) as error:
        raise IngestError(
            f"{file.path}: the value of {key.decode()} is damaged ({error}); fetch the file again"
        ) from error
