"""A part of the data as one pass over it found it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.trainers.batching.records import Record, RecordSource
from mlipdb.trainers.devices import is_first
from mlipdb.trainers.graph import GraphNeeds
from mlipdb.trainers.kept_counts import Counts, check, counts_file, keep_counts, read_counts
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.survey import Found, Survey, survey, survey_found

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
    """Read the records of these structures once; their edges are listed only where nobody counted them before."""
    source = RecordSource(
        db,
        cutoff=reading.cutoff,
        needs=reading.needs,
        method_id=reading.method_id,
        teacher_id=reading.teacher_id,
        budget=int(recipe.data.cache_gib * GIB * reading.memory),
        threads=recipe.data.threads,
    )
    file = counts_file(db, ids, cutoff=reading.cutoff, needs=reading.needs)
    found = _known(source, ids, energy=reading.energy, counts=read_counts(file, structures=len(ids)))
    if found is None:
        found, counts = _counted(source, ids, energy=reading.energy)
        if is_first() and len(ids):
            keep_counts(file, counts)
    return FoundPart(ids=ids, source=source, survey=found)


def _known(
    source: RecordSource, ids: Int64[np.ndarray, " structures"], *, energy: str, counts: Counts | None
) -> Survey | None:
    """The survey with edges that were counted before; None where they are not known, or of other structures."""
    if counts is None:
        return None
    checks: list[int] = []

    def found() -> Iterator[Found]:
        for place, parts in enumerate(source.without_neighbours(ids)):
            checks.append(check(parts[0]))
            triplets = None if counts.triplets is None else int(counts.triplets[place])
            yield Found(*parts, int(counts.edges[place]), triplets)

    made = survey_found(found(), energy=energy)
    return made if checks == counts.checks.tolist() else None


def _counted(source: RecordSource, ids: Int64[np.ndarray, " structures"], *, energy: str) -> tuple[Survey, Counts]:
    """The survey with edges that are listed for it, and how many they are."""
    checks: list[int] = []

    def noted() -> Iterator[Record]:
        for record in source.stream(ids):
            checks.append(check(record.structure))
            yield record

    made = survey(noted(), energy=energy)
    sizes = made.sizes
    return made, Counts(edges=sizes.edges, triplets=sizes.triplets, checks=np.array(checks, dtype=np.uint32))
