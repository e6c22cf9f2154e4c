"""Which methods' labels are exported, and which of their energies stands under a format's one name for it."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import func, select

from mlipdb.catalog import LabelRow, StructureRow
from mlipdb.database import Database
from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.export.exporter import ExportMethod
from mlipdb.labels import ENERGY_KINDS, Method
from mlipdb.methods import find_method

CHUNK = 5000


def choose_methods(
    db: Database, ids: Sequence[int] | np.ndarray, *, names: Sequence[str] = (), energy: str | None = None
) -> tuple[ExportMethod, ...]:
    """The methods named, or the one that made the labels which came with the structures.

    energy is a kind such as ``corrected``; without it the uncorrected energy, or the only kind that there is. Raises
    NotFoundError for an unknown method, ConfigError where the choice is not clear.
    """
    kind = energy_kind(energy) if energy is not None else None
    numbers: list[int | None] = [find_method(db, name) for name in names] if names else [_source_method(db, ids)]
    if len(set(numbers)) != len(numbers):
        raise ConfigError(f"--method {' --method '.join(names)}: a method is named twice; name each once")
    known = db.methods()
    chosen: list[ExportMethod] = []
    for number in numbers:
        method = known[number] if number is not None else None
        key = _key(method, taken={other.key for other in chosen}, number=number)
        found = _energy(db, number, kind, first=not chosen)
        chosen.append(ExportMethod(id=number, key=key, energy=found, method=method))
    return tuple(chosen)


def energy_kind(text: str) -> str:
    """``corrected`` or ``energy_corrected`` as the name of the column. Raises ConfigError."""
    short = {kind.removeprefix("energy_").removesuffix("_energy"): kind for kind in ENERGY_KINDS}
    names = {**short, **{kind: kind for kind in ENERGY_KINDS}}
    if text not in names:
        raise ConfigError(f"energy {text!r} is unknown.{did_you_mean(text, names)} Known: {', '.join(short)}")
    return names[text]


def _source_method(db: Database, ids: Sequence[int] | np.ndarray) -> int | None:
    """The method of the labels that came with the structures; None where nobody named one.

    Raises ConfigError where there are several: their energies must not share a name.
    """
    found: dict[int, int] = {}
    row = LabelRow
    query = select(row.method_id, func.count()).join(StructureRow, StructureRow.id == row.structure_id)
    query = query.where(row.shard_id == StructureRow.shard_id).group_by(row.method_id)
    with db.session() as session:
        for start in range(0, len(ids), CHUNK):
            chunk = [int(identity) for identity in ids[start : start + CHUNK]]
            for number, count in session.execute(query.where(row.structure_id.in_(chunk))):
                found[number] = found.get(number, 0) + count
    if len(found) < 2:
        return next(iter(found), None)
    known = db.methods()
    listed = ", ".join(f"{known[number].name} ({count} structures, number {number})" for number, count in found.items())
    words = " ".join(f"--method {number}" for number in found)
    raise ConfigError(
        f"the structures came with labels of {len(found)} methods: {listed}. Energies of two methods cannot share one "
        f"name: choose one with --method, or give each its own names with {words}"
    )


def _key(method: Method | None, *, taken: set[str], number: int | None) -> str:
    """A word for names in files."""
    word = re.sub(r"\W+", "_", method.name).strip("_") if method is not None else "source"
    word = word if word[:1].isalpha() else f"method_{word}"
    return word if word not in taken else f"{word}_{number}"


def _energy(db: Database, number: int | None, kind: str | None, *, first: bool) -> str | None:
    """The kind to write for a method; the kind asked for must be there in the first method."""
    counts = _energy_counts(db, number)
    present = [name for name in ENERGY_KINDS if counts[name]]
    if kind is not None and (kind in present or number is None):
        return kind
    if kind is not None and first and present:
        raise ConfigError(f"no label of this method has {kind}; it has {', '.join(present)}: choose one with --energy")
    if number is None or "energy_uncorrected" in present:
        return "energy_uncorrected"
    if len(present) > 1:
        raise ConfigError(f"the labels have {' and '.join(present)}: say which is the energy with --energy")
    return present[0] if present else None


def _energy_counts(db: Database, number: int | None) -> dict[str, int]:
    if number is None:
        return dict.fromkeys(ENERGY_KINDS, 0)
    columns: list[Any] = [func.count(getattr(LabelRow, kind)) for kind in ENERGY_KINDS]
    with db.session() as session:
        found = session.execute(select(*columns).where(LabelRow.method_id == number)).one()
    return dict(zip(ENERGY_KINDS, found, strict=True))
