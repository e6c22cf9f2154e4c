"""Structures and labels out of flat arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mlipdb.labels import Label
from mlipdb.records import ArrayBatch
from mlipdb.store.record import PERIODIC, Record, includes_e0
from mlipdb.structures import Structure

_LABEL_SCALARS = ("energy_uncorrected", "energy_corrected", "free_energy", "energy_zero", "band_gap")
_LABEL_PER_ATOM = ("forces", "magmoms", "atomic_energies")
_NOTHING: dict[str, Any] = {name: field.default for name, field in Label.__dataclass_fields__.items()}
T = TypeVar("T")


def as_records(batch: ArrayBatch, flags: Sequence[int], properties: Mapping[int, dict[str, float]]) -> list[Record]:
    """The records of a batch that has every quantity; flags are those of their headers."""
    labels = _labels(batch, flags, properties)
    values, present = batch.values, batch.present
    charges = _column(values["charge"], present["charge"])
    spins = _column(values["spin_multiplicity"], present["spin_multiplicity"])
    ids, ends, cells = batch.ids.tolist(), batch.offsets.tolist(), batch.cells
    records = []
    for place, label in enumerate(labels):
        atoms = slice(ends[place], ends[place + 1])
        structure = _made(
            Structure,
            atomic_numbers=batch.atomic_numbers[atoms],
            positions=batch.positions[atoms],
            cell=cells[place],
            pbc=PERIODIC[flags[place] & 7],
            charge=charges[place],
            spin_multiplicity=None if (spin := spins[place]) is None else int(spin),
            id=ids[place],
        )
        records.append(Record(structure, label))
    return records


def _made(kind: type[T], **fields: Any) -> T:
    """An instance of a frozen dataclass without its constructor, which takes as long as the rest of a record."""
    made = object.__new__(kind)
    vars(made).update(fields)
    return made


def _column(values: np.ndarray, present: np.ndarray) -> list[float | None]:
    found: list[float | None] = values.tolist()
    for place in np.flatnonzero(~present):
        found[place] = None
    return found


def _labels(batch: ArrayBatch, flags: Sequence[int], properties: Mapping[int, dict[str, float]]) -> list[Label | None]:
    """Labels by place, None where a record has nothing of one."""
    fields: list[dict[str, Any]] = [{} for _ in flags]
    for name in _LABEL_SCALARS:
        values, has = batch.values[name], np.flatnonzero(batch.present[name])
        for place, value in zip(has.tolist(), values[has].tolist(), strict=True):
            fields[place][name] = value
    ends = batch.offsets.tolist()
    for name in _LABEL_PER_ATOM:
        array = batch.values[name]
        for place in np.flatnonzero(batch.present[name]).tolist():
            fields[place][name] = array[ends[place] : ends[place + 1]]
    for place in np.flatnonzero(batch.present["stress"]).tolist():
        fields[place]["stress"] = batch.values["stress"][place]
    for place, given in properties.items():
        fields[place]["properties"] = given
    return [_label(given, flag) for given, flag in zip(fields, flags, strict=True)]


def _label(given: dict[str, Any], flags: int) -> Label | None:
    if not given:
        return None
    given.setdefault("properties", {})
    return _made(Label, **{**_NOTHING, "atomic_energies_include_e0": includes_e0(flags), **given})
