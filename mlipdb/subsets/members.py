"""The rows of a subset's members, read and written a hundred thousand in about a second."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii

import numpy as np
from jaxtyping import Int64
from sqlalchemy import BindParameter, bindparam, select
from sqlalchemy.orm import Session

from mlipdb.catalog import Material, Source, StructureRow, SubsetMember
from mlipdb.catalog.rows import insert_many

CHUNK = 10_000
Ids = Int64[np.ndarray, " _"]


@dataclass(frozen=True)
class MemberFacts:
    """Of each member its source, its id there and its material; hash is of all.

    The hash is the SHA-256 of the sorted lines ``["source", "external id", "content hash"]``, JSON in ASCII: two
    databases with the same data agree on it.
    """

    sources: list[str]
    external_ids: list[str]
    materials: list[str]
    hash: str


def read_members(session: Session, ids: Ids) -> MemberFacts:
    """What freezing needs to know of structures, in the order of their ascending ids."""
    names = {row.id: row.name for row in session.execute(select(Source.id, Source.name))}
    quoted = {identity: encode_basestring_ascii(name) for identity, name in names.items()}
    sources, externals, materials, lines = [], [], [], []
    row = StructureRow.__table__.c
    wanted = select(row.source_id, row.material_id, row.external_id, row.content_hash)
    wanted = wanted.where(row.id.in_(_some)).order_by(row.id)
    for chunk in _chunks(ids):
        for source, material, external, content in session.connection().execute(wanted, {"some": chunk}):
            sources.append(names[source])
            externals.append(external)
            materials.append(material)
            lines.append(f'[{quoted[source]}, {encode_basestring_ascii(external)}, "{content.hex()}"]\n')
    keys = _material_keys(session, np.unique(np.array(materials, np.int64)))
    digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    return MemberFacts(sources, externals, [keys[material] for material in materials], digest)


# written into the statement, so that no limit of parameters counts; they are numbers
_some: BindParameter[int] = bindparam("some", expanding=True, literal_execute=True)


def _chunks(ids: Ids) -> Iterator[list[int]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK].tolist()


def _material_keys(session: Session, ids: Ids) -> dict[int, str]:
    keys: dict[int, str] = {}
    wanted = select(Material.id, Material.key).where(Material.id.in_(_some))
    for chunk in _chunks(ids):
        keys.update((row.id, row.key) for row in session.execute(wanted, {"some": chunk}))
    return keys


def add_members(session: Session, subset_id: int, ids: Ids, parts: Sequence[str]) -> None:
    """Insert the members of a new subset; ids ascend."""
    rows = [(subset_id, identity, part) for identity, part in zip(ids.tolist(), parts, strict=True)]
    insert_many(session, SubsetMember, ("subset_id", "structure_id", "split"), rows)
