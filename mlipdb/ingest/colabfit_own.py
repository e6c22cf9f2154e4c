"""ColabFit files that mlipdb wrote: what has no column stands as JSON beside it, and comes back from there."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from mlipdb.ingest.reader import Frame, checked_row
from mlipdb.labels import ENERGY_KINDS, Label
from mlipdb.structures import checked_electrons

KEY = b"mlipdb"
_ARRAYS = ("magmoms", "atomic_energies")


def own_facts(path: Path) -> dict[str, Any] | None:
    """What an export of ours says of the whole file; None for a file of others, or one that cannot be opened."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = (pq.read_schema(path).metadata or {}).get(KEY)
        about = orjson.loads(found) if found else None
    except (pa.ArrowException, OSError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def restored(frame: Frame, configuration: str | None, label: str | None, *, keep_id: bool) -> Frame:
    """A frame with its own tags, row, charge and spin, and the quantities of its label that have no column.

    keep_id: the structure's own id becomes the frame's; not where a structure has a row for each of several methods.
    Raises ValueError where the JSON is damaged.
    """
    facts = _mapping(configuration)
    structure = frame.structure
    if "charge" in facts or "spin_multiplicity" in facts:
        charge, spin = checked_electrons(facts.get("charge"), facts.get("spin_multiplicity"))
        structure = replace(structure, charge=charge, spin_multiplicity=spin)
    tags = {str(name): str(value) for name, value in facts.get("tags", {}).items()}
    if "split" in facts:
        tags["split"] = str(facts["split"])
    return replace(
        frame,
        structure=structure,
        label=None if frame.label is None else _label(frame.label, _mapping(label)),
        external_id=str(facts["external_id"]) if keep_id and "external_id" in facts else frame.external_id,
        tags=tags,
        row=None if facts.get("row") is None else checked_row(facts["row"]),
    )


def _label(label: Label, facts: Mapping[str, Any]) -> Label:
    kind = facts.get("energy_kind") or "energy_uncorrected"
    known = {*ENERGY_KINDS, *_ARRAYS, "atomic_energies_include_e0", "energy_kind"}
    energies: dict[str, Any] = {name: facts.get(name) for name in ENERGY_KINDS}
    energies[kind if kind in ENERGY_KINDS else "energy_uncorrected"] = label.energy_uncorrected
    arrays: dict[str, Any] = {
        name: np.array(facts[name], dtype=np.float64) for name in _ARRAYS if facts.get(name) is not None
    }
    more = {name: float(value) for name, value in facts.items() if name not in known}
    include = facts.get("atomic_energies_include_e0")
    properties = {**label.properties, **more}
    return replace(label, **energies, **arrays, atomic_energies_include_e0=include, properties=properties)


def _mapping(text: str | None) -> dict[str, Any]:
    found = orjson.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
