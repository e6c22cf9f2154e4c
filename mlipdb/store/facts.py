"""What a shard says of its records beside their arrays: enough to make the catalog's rows again from it.

Stored in the shard as compressed JSON, columns of as many values as records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lmdb
import orjson
import zstandard

from mlipdb.errors import CorruptError
from mlipdb.records import SpaceGroup, SymmetryTool
from mlipdb.store.prepared import Prepared

FACTS_KEY = b"facts"  # five bytes, so it cannot be a structure id
LEVEL = 12


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """Facts of a shard's records in their order.

    source has the columns of the source's row; methods are those of the labels as plain data, and each record names its
    own by its place among them. Of a shard of labels only methods, label_methods and parts are set.
    """

    source: Mapping[str, Any] = field(default_factory=dict)
    methods: Sequence[Mapping[str, Any]] = ()
    symmetry: SymmetryTool | None = None
    external_ids: Sequence[str] = ()
    materials: Sequence[str] = ()
    space_groups: Sequence[SpaceGroup | None] = ()
    label_methods: Sequence[int | None] = ()
    tags: Sequence[Mapping[str, str]] = ()
    rows: Sequence[int | None] = ()
    parts: Sequence[int] = ()


def structure_facts(
    records: Sequence[Prepared],
    *,
    source: Mapping[str, Any],
    methods: Mapping[int, Mapping[str, Any]],
    method: int | None,
    symmetry: SymmetryTool | None,
) -> ShardFacts:
    """Facts of structures that are about to be sealed; methods are the ones they name and the append's, by id."""
    place = {identity: number for number, identity in enumerate(methods)}
    makers = [record.method_id or method if record.label_columns is not None else None for record in records]
    return ShardFacts(
        source=source,
        methods=list(methods.values()),
        symmetry=symmetry,
        external_ids=[record.external_id for record in records],
        materials=[record.material for record in records],
        space_groups=[record.space_group for record in records],
        label_methods=[None if maker is None else place[maker] for maker in makers],
        tags=[record.tags for record in records] if any(record.tags for record in records) else (),
        rows=[record.row for record in records] if any(record.row is not None for record in records) else (),
    )


def pack_facts(facts: ShardFacts) -> bytes:
    """The bytes to store; texts that repeat are named once."""
    data = {
        "source": dict(facts.source),
        "methods": [dict(method) for method in facts.methods],
        "symmetry": None if facts.symmetry is None else vars(facts.symmetry),
        "external_ids": facts.external_ids,
        "materials": _index(facts.materials),
        "space_groups": _index([group and [group.number, group.symbol] for group in facts.space_groups]),
        "label_methods": _index(facts.label_methods),
        "tags": _index([sorted(tags.items()) for tags in facts.tags]),
        "rows": facts.rows,
        "parts": _index(facts.parts),
    }
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(orjson.dumps(data))


_PLAIN = (str, int, type(None))  # bytes stand for values that are no key of a dictionary


def _index(values: Sequence[Any]) -> list[Any]:
    """Distinct values in the order of their coming, and each value's step from the place of the one before it."""
    known: dict[str | int | bytes | None, int] = {}
    places = [known.setdefault(value if type(value) in _PLAIN else orjson.dumps(value), len(known)) for value in values]
    steps = [now - before for before, now in zip([0, *places], places, strict=False)]
    return [[orjson.loads(value) if isinstance(value, bytes) else value for value in known], steps]


def _values(index: Sequence[Any]) -> list[Any]:
    distinct, steps = index
    place, found = 0, []
    for step in steps:
        place += step
        found.append(distinct[place])
    return found


def unpack_facts(data: bytes) -> ShardFacts:
    """The facts in stored bytes; CorruptError where they are damaged."""
    try:
        found = orjson.loads(zstandard.ZstdDecompressor().decompress(data))
        return ShardFacts(
            source=found["source"],
            methods=found["methods"],
            symmetry=None if found["symmetry"] is None else SymmetryTool(**found["symmetry"]),
            external_ids=found["external_ids"],
            materials=_values(found["materials"]),
            space_groups=[group and SpaceGroup(*group) for group in _values(found["space_groups"])],
            label_methods=_values(found["label_methods"]),
            tags=[dict(tags) for tags in _values(found["tags"])],
            rows=found["rows"],
            parts=_values(found["parts"]),
        )
    except (zstandard.ZstdError, orjson.JSONDecodeError, LookupError, TypeError, ValueError) as error:
        raise CorruptError(f"the facts of a shard are damaged ({error}); restore the shard from a backup") from error


def facts_in(transaction: lmdb.Transaction) -> ShardFacts | None:
    """The facts of a shard, None in shards of format 1."""
    data = transaction.get(FACTS_KEY)
    return None if data is None else unpack_facts(bytes(data))
