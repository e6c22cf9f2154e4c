"""How far a teacher's forces are from the labels: the error that a student is measured by."""

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.trainers.metrics import MILLI


def teacher_forces_mae(
    db: Database, ids: Int64[np.ndarray, " structures"], *, teacher_id: int, method_id: int | None
) -> float | None:
    """Mean absolute difference of force components over structures that have both, meV/Å; None where none has.

    method_id chooses the labels; None for those that came with the structures.
    """
    numbers = [int(number) for number in ids]
    total, count = 0.0, 0
    labelled, taught = db.read(numbers, method_id=method_id), db.read(numbers, method_id=teacher_id)
    for (_, label), (_, teacher) in zip(labelled, taught, strict=True):
        if label is None or teacher is None or label.forces is None or teacher.forces is None:
            continue
        total += float(np.abs(teacher.forces - label.forces).sum())
        count += label.forces.size
    return MILLI * total / count if count else None
