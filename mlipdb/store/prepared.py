"""A structure made ready to be stored: everything that needs neither an id nor the catalog."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlipdb.labels import ENERGY_KINDS, Label, label_hash, present_arrays, says_nothing
from mlipdb.records import NewStructure, SpaceGroup
from mlipdb.store.codec import Encoded, Encoder
from mlipdb.structures import Structure, chemical_system, reduced_formula

# What the tuples of a Prepared hold, by the names of the catalog's columns.
STRUCTURE_COLUMNS = (
    "content_hash", "nsites", "nelements", "chemical_formula_reduced", "chemical_system", "volume", "pbc", "charge",
    "spin_multiplicity",
)  # fmt: skip
LABEL_COLUMNS = (*ENERGY_KINDS, "band_gap", "max_force", "arrays", "hessian_rows", "content_hash")


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """A NewStructure without its arrays: compressed record, column values, hashes. Small to send between processes.

    columns are in the order of STRUCTURE_COLUMNS, label_columns in that of LABEL_COLUMNS or None without a label;
    elements are (atomic number, count), ascending. The rest is as in NewStructure; space_group may be put in later
    with dataclasses.replace.
    """

    record: Encoded
    columns: tuple[Any, ...]
    elements: tuple[tuple[int, int], ...]
    label_columns: tuple[Any, ...] | None
    external_id: str
    material: str
    space_group: SpaceGroup | None
    method_id: int | None
    tags: Mapping[str, str]
    row: int | None

    @property
    def content_hash(self) -> bytes:
        """The structure's content hash."""
        return bytes(self.columns[0])

    @property
    def label_hash(self) -> bytes | None:
        """The label's content hash."""
        return None if self.label_columns is None else bytes(self.label_columns[-1])

    @property
    def periodic(self) -> bool:
        """True for three periodic directions: then a search for its space group makes sense."""
        return bool(self.columns[6] == 7)


def prepare(record: NewStructure, encoder: Encoder) -> Prepared:
    """Compress a record and work out its columns. Many at once, with prepare_all, take a fraction of the time each."""
    return prepare_all([record], encoder)[0]


def prepare_all(records: Sequence[NewStructure], encoder: Encoder | None = None) -> list[Prepared]:
    """Prepare records; any process may do it, with an encoder of its own per thread."""
    encoded = (encoder or Encoder()).prepare([(record.structure, record.label) for record in records])
    return [describe(record, data) for record, data in zip(records, encoded, strict=True)]


def describe(record: NewStructure, data: Encoded) -> Prepared:
    """A record whose bytes are made, or stored, already."""
    structure, label = record.structure, record.label
    return Prepared(
        record=data,
        columns=structure_columns(structure),
        elements=tuple(structure.composition.items()),
        label_columns=None if label is None or says_nothing(label) else label_columns(label),
        external_id=record.external_id,
        material=record.material,
        space_group=record.space_group,
        method_id=record.method_id,
        tags=record.tags,
        row=record.row,
    )


def structure_columns(structure: Structure) -> tuple[Any, ...]:
    """The columns of a structure that depend on its arrays alone, in the order of STRUCTURE_COLUMNS."""
    composition = structure.composition
    return (
        structure.content_hash,
        len(structure),
        len(composition),
        reduced_formula(composition),
        chemical_system(composition),
        structure.volume,
        sum(1 << axis for axis, periodic in enumerate(structure.pbc) if periodic),
        structure.charge,
        structure.spin_multiplicity,
    )


def label_columns(label: Label) -> tuple[Any, ...]:
    """The columns of a label that depend on it alone, in the order of LABEL_COLUMNS."""
    return (
        *(getattr(label, kind) for kind in ENERGY_KINDS),
        label.band_gap,
        label.max_force,
        " ".join(present_arrays(label)),
        0 if label.hessian_row_numbers is None else len(label.hessian_row_numbers),
        label_hash(label),
    )
