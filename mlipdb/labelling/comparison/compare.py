"""Compare what two methods said of the same structures, and judge it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.labelling.comparison.consistency import consistency_lines
from mlipdb.labelling.comparison.quantities import (
    Energies,
    align_energies,
    energy_lines,
    force_line,
    row_line,
    stress_line,
)
from mlipdb.labelling.comparison.sample import (
    AGAINST,
    Sample,
    Side,
    common_ids,
    draw,
    find_side,
    read_sample,
    source_methods,
)
from mlipdb.labelling.comparison.verdict import Line

SAMPLE = 1000  # structures that are read


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelComparison:
    """Two methods on structures that both labelled; a line for each quantity, errors of the second against the first.

    structures have labels of both, sampled of them were read. constants are what the second's energy has more than the
    first's for an atom of each element, in eV. sample and energies hold the values to draw.
    """

    first: str
    second: str
    filter: str
    structures: int
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    constants: dict[int, float]
    sample: Sample
    energies: Energies | None

    @property
    def sampled(self) -> int:
        """How many structures were read."""
        return len(self.sample.ids)

    @property
    def failures(self) -> tuple[Line, ...]:
        """What fails."""
        return tuple(line for line in self.lines if line.verdict == "fails")

    @property
    def ok(self) -> bool:
        """Whether nothing fails."""
        return not self.failures

    def describe(self) -> dict[str, Any]:
        """Plain values without those to draw."""
        facts = {name: getattr(self, name) for name in ("first", "second", "filter", "structures", "sampled", "ok")}
        lines = [asdict(line) for line in self.lines]
        return {**facts, "lines": lines, "notes": self.notes, "constants": self.constants}


def compare_labels(
    db: Database, first: str, second: str, *, filter: str = "all", sample: int = SAMPLE, seed: int = 0
) -> LabelComparison:
    """Compare two methods, by name or number (``source``: the labels that came with the structures), on a filter.

    sample is how many structures are read at most, seed which. Raises NotFoundError where a method is not known or no
    structure has labels of both, ConfigError for a name of several methods.
    """
    sides = find_side(db, first), find_side(db, second)
    return compare_sides(db, sides, ids=db.query(filter).ids, filter=filter, sample=sample, seed=seed)


def compare_sides(
    db: Database,
    sides: tuple[Side, Side],
    *,
    ids: Int64[np.ndarray, " structures"],
    filter: str,
    sample: int = SAMPLE,
    seed: int = 0,
) -> LabelComparison:
    """Compare two sides on structures, by ascending id, of which filter is the name."""
    both = common_ids(db, ids, sides=sides)
    chosen = draw(both, count=sample, seed=seed)
    found = read_sample(db, chosen, sides=sides)
    energies = align_energies(found.energies)
    return LabelComparison(
        first=sides[0].name,
        second=sides[1].name,
        filter=filter,
        structures=len(both),
        lines=tuple(_lines(found, energies, sides=sides)),
        notes=tuple(_notes(db, found, energies, sides=sides)),
        constants={} if energies is None else dict(energies.constants),
        sample=found,
        energies=energies,
    )


def _lines(found: Sample, energies: Energies | None, *, sides: tuple[Side, Side]) -> list[Line]:
    of = "both"
    lines = [] if energies is None else energy_lines(energies, of=of)
    if found.forces:
        lines.append(force_line(found.forces, of=of))
    if found.stresses:
        lines.append(stress_line(found.stresses, found.volumes, of=of))
    if found.rows:
        lines.append(row_line(found.rows, of=of))
    for side, alone in zip(sides, found.alone, strict=True):
        lines += consistency_lines(alone, of=side.name)
    return lines


def _notes(db: Database, found: Sample, energies: Energies | None, *, sides: tuple[Side, Side]) -> list[str]:
    notes = []
    if energies is not None and AGAINST in energies.kind:
        notes.append(
            f"the energies are not of one kind ({energies.kind}): what differs by more than a constant per element may "
            "be the correction, such as MP2020, and not an error"
        )
    if any(side.method_id is None for side in sides):
        makers = source_methods(db, np.array(found.ids, np.int64))
        if len(makers) > 1:
            told = f"are of {len(makers)} methods ({', '.join(makers)}): compare each"
            notes.append(f"the labels that came with the structures {told}")
    return notes
