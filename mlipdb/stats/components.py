"""Force components of a few structures, which lie in the shards."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mlipdb.database import Database
from mlipdb.stats.histogram import Histogram, merged

WIDTH = 0.01  # eV/Å


def force_components(db: Database, ids: Sequence[int], *, method_id: int) -> Histogram | None:
    """A histogram of the force components of structures by a method in eV/Å; None where it gave none."""
    numbers: Counter[int] = Counter()
    for _, label in db.read(ids, method_id=method_id):
        if label is not None and label.forces is not None:
            values, found = np.unique(np.floor(label.forces / WIDTH).astype(np.int64), return_counts=True)
            numbers.update(dict(zip(values.tolist(), found.tolist(), strict=True)))
    return merged(numbers, WIDTH, unit="eV/Å") if numbers else None
