"""Force components of a few structures, which lie in the shards."""

from collections.abc import Sequence

import numpy as np

from mlipdb.database import Database
from mlipdb.stats.histogram import Histogram, merged

WIDTH = 0.01  # eV/Å


def force_components(db: Database, ids: Sequence[int], *, method_id: int) -> Histogram | None:
    """A histogram of the force components of structures by a method in eV/Å; None where it gave none."""
    if not len(ids):
        return None
    forces = db.read_arrays(ids, method_id=method_id, fields=("forces",)).values["forces"]
    values, found = np.unique(np.floor(forces[~np.isnan(forces)] / WIDTH).astype(np.int64), return_counts=True)
    return merged(dict(zip(values.tolist(), found.tolist(), strict=True)), WIDTH, unit="eV/Å") if len(values) else None
