"""Which structures a filter matches: their number or their ids."""

import numpy as np
from jaxtyping import Int64
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlipdb.catalog import Subset
from mlipdb.query.compile import select_structure_ids


def frozen_subsets(session: Session) -> dict[str, int]:
    """Names and ids of the frozen subsets: what a filter may name."""
    return {row.name: row.id for row in session.execute(select(Subset.name, Subset.id))}


def count_structures(session: Session, text: str) -> int:
    """The number of structures that a filter matches. Raises QueryError."""
    ids = select_structure_ids(text, subsets=frozen_subsets(session))
    return session.scalar(select(func.count()).select_from(ids.order_by(None).subquery())) or 0


def structure_ids(session: Session, text: str) -> Int64[np.ndarray, " structures"]:
    """The ids of the structures that a filter matches, ascending. Raises QueryError."""
    statement = select_structure_ids(text, subsets=frozen_subsets(session))
    return np.fromiter(session.scalars(statement), dtype=np.int64)
