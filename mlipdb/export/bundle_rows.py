"""What a bundle's rows say: a structure, or a label that was added to one, each with its record."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlipdb.errors import CorruptError
from mlipdb.export.bundle_file import BundleReader
from mlipdb.labels import Label, Method, check_label
from mlipdb.records import SpaceGroup, SymmetryTool
from mlipdb.store.decode import Decoder
from mlipdb.structures import Structure


@dataclass(frozen=True, eq=False, kw_only=True)
class BundledStructure:
    """A structure of a bundle. number counts from 1 in the bundle; method is the place of its label's method."""

    number: int
    source: str
    external_id: str
    material: str
    row: int | None
    tags: dict[str, str]
    space_group: SpaceGroup | None
    symmetry: SymmetryTool | None
    split: str
    method: int | None
    structure: Structure
    label: Label | None


@dataclass(frozen=True, eq=False, kw_only=True)
class BundledLabel:
    """A part of a label that was added to a structure, or the reason why there is none."""

    number: int
    method: int
    part: int
    label: Label | None
    reason: str | None


def bundled_structures(bundle: BundleReader, name: str) -> Iterator[BundledStructure]:
    """The structures of one member of the folder ``structures``. Raises CorruptError where row and record disagree."""
    decoder = Decoder()
    for row, data in _records(bundle, f"structures/{name}"):
        record = decoder.decode(row["number"], data)
        structure, group, tool = record.structure, row["space_group"], row["symmetry"]
        if structure is None or structure.content_hash.hex() != row["content_hash"]:
            raise CorruptError(f"{bundle.path}: the record of {row['external_id']!r} is of another structure")
        if record.label is not None:
            check_label(record.label, natoms=len(structure), pbc=structure.pbc)
        yield BundledStructure(
            number=row["number"],
            source=row["source"],
            external_id=row["external_id"],
            material=row["material"],
            row=row["row"],
            tags=row["tags"],
            space_group=None if group is None else SpaceGroup(*group),
            symmetry=None if tool is None else SymmetryTool(*tool),
            split=row["split"],
            method=row["method"],
            structure=structure,
            label=record.label,
        )


def bundled_labels(bundle: BundleReader, name: str) -> Iterator[BundledLabel]:
    """The labels of one member of the folder ``labels``."""
    decoder = Decoder()
    for row, data in _records(bundle, f"labels/{name}"):
        label = decoder.decode(row["number"], data).label if data else None
        if label is None and row["reason"] is None:
            raise CorruptError(f"{bundle.path}: a label of structure {row['number']} has neither a record nor a reason")
        yield BundledLabel(
            number=row["number"], method=row["method"], part=row["part"], label=label, reason=row["reason"]
        )


def _records(bundle: BundleReader, stem: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each row with the bytes of its record."""
    data, start = bundle.part(f"{stem}.records"), 0
    for row in bundle.rows(f"{stem}.jsonl.zst"):
        yield row, data[start : start + row["bytes"]]
        start += row["bytes"]
    if start != len(data):
        raise CorruptError(f"{bundle.path}: {stem}.records has {len(data)} bytes, its rows need {start}")


def bundled_methods(bundle: BundleReader) -> list[Method]:
    """The methods, in the order that rows count them."""
    return [Method(**row) for row in bundle.rows("methods.jsonl.zst")]
