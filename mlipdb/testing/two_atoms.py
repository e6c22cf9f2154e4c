"""Two atoms in a small box with numbers that are easy to work out, which the tests of several readers share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlipdb.structures import Structure, make_structure

CELL = [[4.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 2.0]]  # Å; 40 Å³
PLACES = [[0.0, 0.0, 0.0], [0.5, 1.0, 1.5]]  # Å
FORCES = [[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]
VOIGT = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])  # xx, yy, zz, yz, xz, xy
TENSOR = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]])  # the same as a matrix


def box() -> Structure:
    """H and O at PLACES in CELL, periodic."""
    return make_structure([1, 8], PLACES, cell=CELL, pbc=(True, True, True))


def moved(step: int) -> list[list[float]]:
    """PLACES with the second atom 0.125 Å further along z in each step."""
    return [PLACES[0], [0.5, 1.0, 1.5 + 0.125 * step]]


def write_parquet(
    path: Path, *rows: Mapping[str, Any], types: Mapping[str, Any], about: Mapping[str, Any] | None = None
) -> Path:
    """Rows as a Parquet file; about goes into its metadata under mlipdb."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: pa.array([row[name] for row in rows], type=types.get(name)) for name in rows[0]})
    pq.write_table(table.replace_schema_metadata({"mlipdb": json.dumps(about)} if about else None), path)
    return path
