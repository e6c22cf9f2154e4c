"""What a person wants to see of the structures that a filter matches."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlipdb.catalog import LabelRow, MethodRow, StructureRow
from mlipdb.query.find import count_structures, structure_ids


@dataclass(frozen=True, kw_only=True)
class StructureSummary:
    """One structure; energy (uncorrected, eV) and band_gap (eV) are of its first DFT label, None when it has none."""

    id: int
    external_id: str
    chemical_formula_reduced: str
    space_group_it_number: int | None
    space_group_symbol: str | None
    nsites: int
    energy: float | None
    band_gap: float | None


@dataclass(frozen=True)
class Answer:
    """How many structures match a filter, and the first of them."""

    filter: str
    count: int
    structures: tuple[StructureSummary, ...]


def summarise(session: Session, text: str, *, limit: int | None) -> Answer:
    """Count the structures that a filter matches and describe the first limit of them, in the order of their ids.

    limit None describes all of them, 0 none. Raises QueryError.
    """
    if limit == 0:
        return Answer(text, count_structures(session, text), ())
    ids = structure_ids(session, text)
    return Answer(text, len(ids), _structures(session, ids=ids[:limit].tolist()))


def _structures(session: Session, *, ids: list[int], at_once: int = 5000) -> tuple[StructureSummary, ...]:
    found: list[StructureSummary] = []
    for start in range(0, len(ids), at_once):
        found.extend(_describe(session, ids[start : start + at_once]))
    return tuple(found)


def _describe(session: Session, ids: list[int]) -> list[StructureSummary]:
    labels = _first_labels(session, ids)
    row = StructureRow
    columns = (row.id, row.external_id, row.chemical_formula_reduced, row.space_group_it_number)
    query = select(*columns, row.space_group_symbol, row.nsites).where(row.id.in_(ids)).order_by(row.id)
    return [
        StructureSummary(
            id=found.id,
            external_id=found.external_id,
            chemical_formula_reduced=found.chemical_formula_reduced,
            space_group_it_number=found.space_group_it_number,
            space_group_symbol=found.space_group_symbol,
            nsites=found.nsites,
            energy=labels.get(found.id, (None, None))[0],
            band_gap=labels.get(found.id, (None, None))[1],
        )
        for found in session.execute(query)
    ]


def _first_labels(session: Session, ids: list[int]) -> dict[int, tuple[float | None, float | None]]:
    """Energy and gap of the first DFT label of each structure."""
    columns = (LabelRow.structure_id, LabelRow.energy_uncorrected, LabelRow.band_gap)
    query = select(*columns).join(MethodRow, MethodRow.id == LabelRow.method_id)
    query = query.where(LabelRow.structure_id.in_(ids), LabelRow.part == 0, MethodRow.kind != "teacher")
    found: dict[int, tuple[float | None, float | None]] = {}
    for structure_id, energy, gap in session.execute(query.order_by(LabelRow.id)):
        found.setdefault(structure_id, (energy, gap))
    return found
