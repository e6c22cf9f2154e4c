"""What a record holds, whatever its format version."""

from dataclasses import dataclass

from mlipdb.labels import Label
from mlipdb.structures import Structure

MAGIC = b"Ml"
PERIODIC = tuple((bool(mask & 1), bool(mask & 2), bool(mask & 4)) for mask in range(8))
HAS_E0_FLAG, E0_INCLUDED = 8, 16


@dataclass(frozen=True, eq=False)
class Record:
    """What one record holds; structure is None in a shard of kind ``labels``."""

    structure: Structure | None
    label: Label | None


def record_flags(structure: Structure | None, label: Label | None) -> int:
    """The header's byte of flags: three periodic directions, and what a label says of E0."""
    flags = 0
    if structure is not None:
        x, y, z = structure.pbc
        flags = bool(x) + 2 * bool(y) + 4 * bool(z)
    if label is not None and label.atomic_energies_include_e0 is not None:
        flags |= HAS_E0_FLAG | (E0_INCLUDED if label.atomic_energies_include_e0 else 0)
    return flags


def includes_e0(flags: int) -> bool | None:
    """What the flags say of a label's atomic energies."""
    return bool(flags & E0_INCLUDED) if flags & HAS_E0_FLAG else None
