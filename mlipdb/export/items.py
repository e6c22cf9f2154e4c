"""The structures of an export as a stream, with what the catalog says of each."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from sqlalchemy import select

from mlipdb.catalog import Material, Source, StructureRow, StructureTag, Tag
from mlipdb.database import Database
from mlipdb.export.exporter import ExportItem, ExportMethod
from mlipdb.records import SpaceGroup

CHUNK = 1024


def stream_items(
    db: Database, ids: Sequence[int] | np.ndarray, methods: Sequence[ExportMethod], *, parts: Mapping[int, str]
) -> Iterator[ExportItem]:
    """Yield an item for each id, in their order; parts says which part of a split an id is in."""
    for start in range(0, len(ids), CHUNK):
        chunk = [int(identity) for identity in ids[start : start + CHUNK]]
        facts, tags = _facts(db, chunk), tags_of(db, chunk)
        streams = [db.read(chunk, method_id=method.id) for method in methods]
        for identity, found in zip(chunk, zip(*streams, strict=True), strict=True):
            external, source, material, row, number, symbol = facts[identity]
            yield ExportItem(
                id=identity,
                external_id=external,
                source=source,
                material=material,
                space_group=SpaceGroup(number, symbol or "") if number is not None else None,
                part=parts.get(identity),
                tags=tags.get(identity, {}),
                row=row,
                structure=found[0][0],
                labels=tuple(label for _, label in found),
            )


_Facts = tuple[str, str, str, int | None, int | None, str | None]


def _facts(db: Database, ids: Sequence[int]) -> dict[int, _Facts]:
    row = StructureRow
    columns = (row.external_id, Source.name, Material.key, row.source_row, row.space_group_it_number)
    query = select(row.id, *columns, row.space_group_symbol)
    query = query.join(Source, Source.id == row.source_id).join(Material, Material.id == row.material_id)
    with db.session() as session:
        return {
            identity: (external, source, material, place, number, symbol)
            for identity, external, source, material, place, number, symbol in session.execute(
                query.where(row.id.in_(ids))
            )
        }


def tags_of(db: Database, ids: Sequence[int]) -> dict[int, dict[str, str]]:
    """The tags of each structure that has any."""
    query = select(StructureTag.structure_id, Tag.name, Tag.value).join(Tag, Tag.id == StructureTag.tag_id)
    query = query.where(StructureTag.structure_id.in_(ids)).order_by(Tag.name, Tag.value)
    found: dict[int, dict[str, str]] = defaultdict(dict)
    with db.session() as session:
        for identity, name, value in session.execute(query):
            found[identity][name] = value
    return found
