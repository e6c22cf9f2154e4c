"""The structures on which methods are farthest apart."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlipdb.catalog import Disagreement, Material, StructureDisagreement, StructureRow
from mlipdb.database import Database
from mlipdb.errors import ConfigError
from mlipdb.labelling.disagreement import find_disagreement
from mlipdb.query import structure_ids

AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class Disputed:
    """A structure with its numbers: forces in eV/Å, energy in eV/atom, None where not known."""

    id: int
    external_id: str
    chemical_formula_reduced: str
    material: str
    forces: float | None
    energy: float | None


def most_disputed(
    db: Database,
    name: str,
    *,
    most: int,
    by: str = "forces",
    filter: str = "all",
    one_per_material: bool = False,
) -> list[Disputed]:
    """The structures on which the methods are farthest apart, farthest first: what to calculate again.

    With one_per_material only the first of each material, as frames of one relaxation teach much the same.
    """
    find_disagreement(db, name)
    if by not in ("forces", "energy"):
        raise ConfigError(f"by {by!r}: structures are sorted by forces or by energy")
    found: list[Disputed] = []
    materials: set[str] = set()
    with db.session() as session:
        chosen = None if filter == "all" else set(structure_ids(session, filter).tolist())
        for structure in _sorted(session, name, by):
            if len(found) == most:
                break
            if (chosen is not None and structure.id not in chosen) or structure.material in materials:
                continue
            if one_per_material:
                materials.add(structure.material)
            found.append(structure)
    return found


def _sorted(session: Session, name: str, by: str) -> Iterator[Disputed]:
    number, row = StructureDisagreement, StructureRow
    value = number.forces if by == "forces" else number.energy
    query = select(row.id, row.external_id, row.chemical_formula_reduced, Material.key, number.forces, number.energy)
    query = query.join(number, number.structure_id == row.id).join(Material, Material.id == row.material_id)
    query = query.join(Disagreement, Disagreement.id == number.disagreement_id)
    query = query.where(Disagreement.name == name, value.is_not(None)).order_by(value.desc(), row.id)
    for identity, external, formula, material, forces, energy in session.execute(query).yield_per(AT_ONCE):
        yield Disputed(
            id=identity,
            external_id=external,
            chemical_formula_reduced=formula,
            material=material,
            forces=forces,
            energy=energy,
        )
