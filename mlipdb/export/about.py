"""Where an exported file came from: database, subset, methods, sources with licence and citation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from sqlalchemy import func, select

from mlipdb.catalog import Source, StructureRow
from mlipdb.database import Database
from mlipdb.export.exporter import ExportMethod
from mlipdb.subsets import FrozenSubset
from mlipdb.version import __version__

CHUNK = 5000
UNITS = {
    "positions": "Å",
    "energy": "eV",
    "forces": "eV/Å",
    "stress": "eV/Å³",
    "magmoms": "µB",
    "hessian_rows": "eV/Å²",
    "charge": "e",
}
SIGNS = {"energy": "total of the structure", "stress": "positive under tension", "hessian_rows": "+d²E/dx dx"}


def describe_export(
    db: Database, ids: Sequence[int] | np.ndarray, *, filter: str, subset: FrozenSubset | None
) -> dict[str, Any]:
    """Plain data about an export, without a date, so that repeating it gives the same bytes."""
    return {
        "written_by": f"mlipdb {__version__}",
        "database": db.uuid,
        "filter": filter,
        "subset": subset.describe() if subset is not None else None,
        "structures": len(ids),
        "units": UNITS,
        "conventions": SIGNS,
        "sources": source_facts(db, ids),
    }


def with_methods(about: Mapping[str, Any], methods: Sequence[ExportMethod]) -> dict[str, Any]:
    """The same with the methods, in the order of their labels, and the kind of energy of each."""
    listed = [
        {
            "key": chosen.key,
            "energy": chosen.energy,
            "method": {name: value for name, value in asdict(chosen.method).items() if value not in (None, {})}
            if chosen.method is not None
            else None,
        }
        for chosen in methods
    ]
    return {**about, "methods": listed}


def source_facts(db: Database, ids: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
    """Name, version, licence, citation and the like of every source of the structures, with how many it has."""
    counts: Counter[int] = Counter()
    query = select(StructureRow.source_id, func.count()).group_by(StructureRow.source_id)
    with db.session() as session:
        for start in range(0, len(ids), CHUNK):
            chunk = [int(identity) for identity in ids[start : start + CHUNK]]
            for source, count in session.execute(query.where(StructureRow.id.in_(chunk))):
                counts[source] += count
        rows = session.scalars(select(Source).where(Source.id.in_(list(counts))).order_by(Source.name))
        names = ("name", "version", "uri", "sha256", "licence", "citation", "reader")
        return [{**{name: getattr(row, name) for name in names}, "structures": counts[row.id]} for row in rows]
