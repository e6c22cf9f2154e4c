"""Small MPtrj files made here, in the published layout; and what is cut out of a JSON file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from mlipdb.errors import IngestError
from mlipdb.ingest import json_records
from mlipdb.ingest.stream import ByteStream


def make_record(*, mp_id="mp-1", shift=0.0, **changes: Any) -> dict[str, Any]:
    """A record of two atoms, MgO with one atom moved by `shift` Å along x."""
    sites = [
        {"species": [{"element": "Mg", "occu": 1}], "abc": [0.0, 0.0, 0.0], "xyz": [0.0, 0.0, 0.0], "properties": {}},
        {
            "species": [{"element": "O", "occu": 1}],
            "abc": [0.5 + shift / 4.0, 0.5, 0.5],
            "xyz": [2.0 + shift, 2.0, 2.0],
            "properties": {},
            "label": "O",
        },
    ]
    record = {
        "structure": {
            "@module": "pymatgen.core.structure",
            "@class": "Structure",
            "charge": 0.0,
            "lattice": {"matrix": [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]], "pbc": [True, True, True]},
            "sites": sites,
        },
        "uncorrected_total_energy": -11.25 - shift,
        "corrected_total_energy": -12.5 - shift,
        "energy_per_atom": -6.25 - shift / 2,
        "ef_per_atom": -3.0,
        "e_per_atom_relaxed": -6.26,
        "ef_per_atom_relaxed": -3.01,
        "force": [[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]],
        "stress": [[16.0, 1.0, 0.0], [1.0, -8.0, 0.0], [0.0, 0.0, 4.0]],
        "magmom": [0.0, 0.03125],
        "bandgap": 4.5,
        "mp_id": mp_id,
    }
    record.update(changes)
    return {key: value for key, value in record.items() if value is not ...}


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    """Makes a record; a keyword changes a field, ... removes it."""
    return make_record


@pytest.fixture
def mptrj_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes {mp_id: {frame_id: record}} as one line."""

    def write(content: Any, name: str = "mptrj.json") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.fixture
def small_file(mptrj_file: Callable[..., Path]) -> Path:
    """Five frames of two materials; mp-1-1-1 and mp-1-1-2 are the same structure with the same label."""
    return mptrj_file(
        {
            "mp-1": {
                "mp-1-1-0": make_record(shift=0.0),
                "mp-1-1-1": make_record(shift=0.25),
                "mp-1-1-2": make_record(shift=0.25),
            },
            "mvc-2": {
                "mvc-7-0-0": make_record(shift=0.5, mp_id="mvc-2", magmom=None),
                "mvc-7-0-1": make_record(shift=0.75, mp_id="mvc-2"),
            },
        }
    )


@pytest.fixture
def cut_json(tmp_path: Path) -> Callable[..., tuple[list[Any], str | None]]:
    """What a function cuts out of a file of these bytes, read in chunks of a size, and the error that ended it."""

    def read(data: bytes, cut: Callable[..., Any], *, chunk: int = 1 << 20, suspicious: int = 64 << 20) -> Any:
        path, found = tmp_path / "f.json", []
        path.write_bytes(data)
        with ByteStream(path) as stream, patch.multiple(json_records, CHUNK=chunk, SUSPICIOUS=suspicious):
            try:
                for item in cut(stream):
                    found.append(item)
            except IngestError as error:
                return found, str(error)
        return found, None

    return read
