"""Made structures as a source of the database, each with the facts of how it was made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from sqlalchemy import select

from mlipdb.catalog import Source, StructureRow
from mlipdb.database import Database
from mlipdb.errors import ConfigError
from mlipdb.generate.changed import changed, usable
from mlipdb.generate.crystals import check_pyxtal, crystal
from mlipdb.generate.dimers import dimer
from mlipdb.generate.making import OF_PARENTS, Making
from mlipdb.generate.trimers import trimer
from mlipdb.query import structure_ids
from mlipdb.records import NewStructure
from mlipdb.structures import Structure
from mlipdb.subsets import subset as subsets

READER = "generate"
FEW = {"dimers": dimer, "trimers": trimer}
AT_ONCE = 2000
LONGEST = 255  # characters of a tag


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A source of made structures: how many it has, and how many of them were made just now."""

    source: str
    structures: int
    fresh: int


def generate(db: Database, making: Making, *, name: str, source: str | None = None) -> Generated:
    """Make structures, without labels, as the source called name; repeating it, after a crash or not, adds nothing.

    source is the frozen subset (its train part) or filter that they are made of or for. Each has the tags made and
    parent (the source and id of what it was made of) and belongs to its parent's material, so that no split divides
    them. Raises ConfigError where the source of that name was made otherwise.
    """
    if making.kind == "crystals":
        check_pyxtal()
    parents, elements = _parents(db, making, source)
    options = {**making.options(), "from": source, "elements": elements}
    known = _known(db, name, options)
    source_id = db.open_source(name, reader=READER, uri=f"made by mlipdb generate {making.kind}", options=options)
    made = _made(db, making, parents=parents, elements=elements, name=name)
    missing = (record for record in made if record.external_id not in known)
    fresh = 0
    while some := list(islice(missing, AT_ONCE)):
        fresh += len(db.append(some, source_id=source_id))
    db.close_source(source_id, state="complete")
    return Generated(source=name, structures=len(known) + fresh, fresh=fresh)


def _parents(db: Database, making: Making, source: str | None) -> tuple[Sequence[int], list[int]]:
    """Ids of what structures are made of, in an order that the seed decides, and the elements to make others of."""
    if source is None and (making.kind in OF_PARENTS or not making.elements):
        raise ConfigError(f"{making.kind} are made of stored structures; name a subset or filter with --from")
    if source is None:
        return [], sorted(making.elements)
    frozen = subsets.load(db, source).splits["train"] if source in subsets.names(db) else None
    with db.session() as session:
        ids = structure_ids(session, source) if frozen is None else frozen
    if not len(ids):
        raise ConfigError(f"{source!r} has no structure to make {making.kind} of; try `mlipdb query` on it")
    if making.kind not in OF_PARENTS:
        held = {number for structure in db.structures(ids) for number in structure.composition}
        return [], sorted(making.elements or held)
    return np.random.default_rng(making.seed).permutation(ids).tolist(), []


def _known(db: Database, name: str, options: dict[str, object]) -> set[str]:
    """What the source has already. Raises ConfigError where it is another one."""
    with db.session() as session:
        row = session.scalar(select(Source).where(Source.name == name))
        if row is None:
            return set()
        if row.reader != READER or row.options != options:
            raise ConfigError(
                f"source {name!r} exists and was made otherwise ({row.reader}, {row.options}); choose another --name"
            )
        return set(session.scalars(select(StructureRow.external_id).where(StructureRow.source_id == row.id)))


def _made(
    db: Database, making: Making, *, parents: Sequence[int], elements: Sequence[int], name: str
) -> Iterator[NewStructure]:
    """The structures in order; the k-th depends on the seed and k alone."""
    pool = _usable(db, parents, making) if parents else []
    for number in range(making.count):
        random = np.random.default_rng([making.seed, number])
        tags = {"made": making.kind}
        material = f"{name}/{number}"
        if pool:
            parent = pool[number % len(pool)]
            structure, facts = changed(parent, making, random=random)
            entry = db.entry(int(parent.id or 0))
            tags["parent"], material = f"{entry.source}/{entry.external_id}"[:LONGEST], entry.material
        elif making.kind in FEW:
            structure, facts, what = FEW[making.kind](elements, making, number=number, random=random)
            material = f"{name}/{what}"
        else:
            structure, facts = crystal(elements, making, random=random)
        yield NewStructure(
            structure=structure,
            label=None,
            external_id=f"{making.kind}-{number}",
            material=material,
            tags={**tags, **facts},
            row=number,
        )


def _usable(db: Database, parents: Sequence[int], making: Making) -> list[Structure]:
    """At most as many parents as there are to be children, those that can be changed so."""
    found: list[Structure] = []
    for start in range(0, len(parents), AT_ONCE):
        found += [each for each in db.structures(parents[start : start + AT_ONCE]) if usable(each, making.kind)]
        if len(found) >= making.count:
            break
    if not found:
        raise ConfigError(f"none of {len(parents)} structures can be {making.kind}: they have no cell or one atom only")
    return found[: making.count]
