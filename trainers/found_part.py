"""A part of the data as one pass over it found it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.trainers.batching.records import RecordSource
from mlipdb.trainers.graph import GraphNeeds
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.survey import Survey, survey

GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How records of a part are read: edges within cutoff (Å), whose labels, which energy, how much is kept in memory.

    memory is a share of the recipe's data.cache_gib; method_id None means the labels that came with the structures.
    """

    cutoff: float
    needs: GraphNeeds
    energy: str
    memory: float
    method_id: int | None = None
    teacher_id: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class FoundPart:
    """What one pass over a part of the data found, and where its records come from."""

    ids: Int64[np.ndarray, " structures"]
    source: RecordSource
    survey: Survey

    @property
    def nothing(self) -> "FoundPart":
        """The part without any structure."""
        return FoundPart(ids=self.ids[:0], source=self.source, survey=survey([], energy=""))


def find_part(db: Database, ids: Int64[np.ndarray, " structures"], reading: Reading, *, recipe: Recipe) -> FoundPart:
    """Read the records of these structures once."""
    source = RecordSource(
        db,
        cutoff=reading.cutoff,
        needs=reading.needs,
        method_id=reading.method_id,
        teacher_id=reading.teacher_id,
        budget=int(recipe.data.cache_gib * GIB * reading.memory),
        threads=recipe.data.threads,
    )
    return FoundPart(ids=ids, source=source, survey=survey(source.stream(ids), energy=reading.energy))
