"""aselmdb: an ASE database in LMDB, as ase-db-backends and fairchem open it; written without either."""

import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import lmdb
import numpy as np
import orjson

from mlipdb.export.ase_rows import ase_fields
from mlipdb.export.exporter import ExportItem, ExportOptions, ExportReport, Tally

BATCH = 512
FIRST_SIZE = 1 << 26  # of the map, doubled when it is full: a huge sparse file hurts where disks have quotas
OPTIONS = orjson.OPT_SERIALIZE_NUMPY


class AselmdbExporter:
    """Rows under the keys 1, 2, …: zlib over JSON. Beside a file lies FILE.metadata.npz, in a folder metadata.npz.

    fairchem takes the folder as ``src``, or the file with that as ``metadata_path``; charge and spin are in the row's
    data, so ``r_data_keys: [charge, spin]`` reads them. What describes the whole file is the database's metadata.
    """

    name: ClassVar[str] = "aselmdb"
    suffixes: ClassVar[tuple[str, ...]] = (".aselmdb", "")
    in_file: ClassVar[bool] = True

    def write(self, path: Path, items: Iterator[ExportItem], options: ExportOptions) -> ExportReport:
        """Write the rows in batches, then a compact copy."""
        tally, natoms = Tally(), []
        if not path.suffix:
            path.mkdir()
        target = path / "data.aselmdb" if path.is_dir() else path
        side = path / "metadata.npz" if path.is_dir() else path.with_name(f"{path.name}.metadata.npz")
        draft = target.with_name(f"{target.name}.draft")
        with lmdb.open(str(draft), subdir=False, map_size=FIRST_SIZE, sync=False, lock=False) as environment:
            while batch := list(islice(items, BATCH)):
                first = tally.written + 1
                rows = {b"%d" % place: _row(item, options, tally) for place, item in enumerate(batch, start=first)}
                natoms += [len(item.structure) for item in batch]
                tally.written += len(batch)
                _put(environment, rows)
            ends = {"nextid": tally.written + 1, "deleted_ids": [], "metadata": options.about}
            _put(environment, {name.encode(): _packed(value) for name, value in ends.items()})
            environment.copy(str(target), compact=True)
        draft.unlink()
        np.savez(side, natoms=np.array(natoms, dtype=np.int64))
        return tally.report()


def _put(environment: lmdb.Environment, rows: Mapping[bytes, bytes]) -> None:
    """Store rows in one transaction, in a map that grows as it must."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, data in rows.items():
                    transaction.put(key, data)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def _row(item: ExportItem, options: ExportOptions, tally: Tally) -> bytes:
    row = ase_fields(item, options, tally)
    return _packed({**_encoded(row.fields), "key_value_pairs": {}, "data": _encoded(row.data)})


def _encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays in ASE's way: shape, type, numbers in a row."""
    return {
        name: {"__ndarray__": [value.shape, value.dtype.name, np.ascontiguousarray(value).reshape(-1)]}
        if isinstance(value, np.ndarray)
        else value
        for name, value in values.items()
    }


def _packed(value: Any) -> bytes:
    return zlib.compress(orjson.dumps(value, option=OPTIONS))
