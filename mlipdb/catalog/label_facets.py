"""Facets of labels: what each label of a shard says, packed; facets.py writes them with those of structures.

Of every label there are ``label/method_id``, ``label/part``, ``label/has`` (a sum of LABEL_ARRAYS and HAS_GAP),
``label/hessian_rows``, ``label/force_place`` (the place of its largest force among FORCE_EDGES) and one of each kind
of energy, such as ``label/free_energy``; what no label of a shard has, or what is 0 for all, is left out.
Of DFT labels, which are what filters ask for, there are ``band_gap``, ``band_gap/steps`` (see gap_step; a byte each,
where the gaps themselves are many), ``max_force`` and ``arrays``, a sum of LABEL_ARRAYS.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlipdb.catalog.label import LabelRow
from mlipdb.catalog.packing import pack_column
from mlipdb.catalog.shard import ShardRow
from mlipdb.labels import ENERGY_KINDS

LABEL_ARRAYS = {"forces": 1, "stress": 2, "magmoms": 4, "atomic_energies": 8, "hessian_rows": 16}
HAS_GAP = 32
FORCE_EDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # eV/Å


class LabelFacts(NamedTuple):
    """Columns of a label that is done, by their names in the catalog."""

    method_id: int
    part: int
    energy_uncorrected: float | None
    energy_corrected: float | None
    free_energy: float | None
    energy_zero: float | None
    band_gap: float | None
    max_force: float | None
    arrays: str
    hessian_rows: int


PlacedLabel = tuple[int, LabelFacts]  # the place of its structure among the shard's ids


def gap_step(gap: float) -> int:
    """The step of 0.05 eV that a gap is on; never less for a larger gap, however the product is rounded."""
    return math.floor(20 * gap)


def pack_labels(labels: Sequence[PlacedLabel], *, rows: int, teachers: Collection[int]) -> dict[str, bytes]:
    """The facets of the labels of a shard, of one for each structure at most, in the order of their places."""
    packed = {f"label/{name}": data for name, data in _of_all(labels, rows=rows).items()}
    return packed | _of_dft([(place, facts) for place, facts in labels if facts.method_id not in teachers], rows=rows)


def _of_all(labels: Sequence[PlacedLabel], *, rows: int) -> dict[str, bytes]:
    places, facts = _whole([place for place, _ in labels], rows=rows), [facts for _, facts in labels]
    numbers = {
        "method_id": [each.method_id for each in facts],
        "part": [each.part for each in facts],
        "has": [_arrays(each.arrays) + (HAS_GAP if each.band_gap is not None else 0) for each in facts],
        "hessian_rows": [each.hessian_rows for each in facts],
    }
    packed = {name: pack_column(values, places) for name, values in numbers.items() if any(values)}
    forces = [None if each.max_force is None else bisect_right(FORCE_EDGES, each.max_force) for each in facts]
    if any(force is not None for force in forces):
        packed["force_place"] = pack_column(forces, places)
    for kind in ENERGY_KINDS:
        energies = [getattr(each, kind) for each in facts]
        if any(energy is not None for energy in energies):
            packed[kind] = pack_column(energies, places, floats=True)
    return packed


def _of_dft(labels: Sequence[PlacedLabel], *, rows: int) -> dict[str, bytes]:
    if not labels:
        return {}
    places, gaps = _whole([place for place, _ in labels], rows=rows), [facts.band_gap for _, facts in labels]
    return {
        "band_gap": pack_column(gaps, places, floats=True),
        "max_force": pack_column([facts.max_force for _, facts in labels], places, floats=True),
        "arrays": pack_column([_arrays(facts.arrays) for _, facts in labels], places),
        "band_gap/steps": pack_column([None if gap is None else gap_step(gap) for gap in gaps], places),
    }


def _whole(places: Sequence[int], *, rows: int) -> Int64[np.ndarray, " labels"] | None:
    """The places as an array; None where each row has its label."""
    found = np.array(places, np.int64)
    return None if np.array_equal(found, np.arange(rows)) else found


@cache  # of millions of labels that have one of a few sets of arrays
def _arrays(names: str) -> int:
    """The sum of LABEL_ARRAYS for the names of a label's arrays."""
    return sum(LABEL_ARRAYS.get(name, 0) for name in names.split())


def labels_in(session: Session, shard: ShardRow) -> list[tuple[int, LabelFacts]]:
    """The labels that are in a shard, by structure, from their table."""
    columns = [getattr(LabelRow, name) for name in LabelFacts._fields]
    inside = LabelRow.structure_id.between(shard.first_structure_id, shard.last_structure_id)
    query = select(LabelRow.structure_id, *columns).where(inside, LabelRow.shard_id == shard.id)
    query = query.order_by(LabelRow.structure_id, LabelRow.id)
    return [(identity, LabelFacts(*values)) for identity, *values in session.execute(query)]
