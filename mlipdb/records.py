"""What goes into a database and what it says of itself: plain frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from mlipdb.labels import Label
from mlipdb.structures import Structure

TEXT_LIMIT = 2000  # bytes of a text that an index of PostgreSQL holds: a third of a page, less what stands beside it


@dataclass(frozen=True)
class SpaceGroup:
    """International number (1 to 230) and short Hermann-Mauguin symbol, such as ``Fm-3m``."""

    number: int
    symbol: str


@dataclass(frozen=True)
class SymmetryTool:
    """What found a space group: the tool, its version and its tolerance in Å."""

    tool: str
    version: str
    symprec: float


@dataclass(frozen=True, eq=False, kw_only=True)
class NewStructure:
    """A structure to append, with the label that its source gives it.

    method_id says who made the label, where that is not the method of the whole append; tags and row as in a Frame.
    """

    structure: Structure
    label: Label | None
    external_id: str
    material: str
    space_group: SpaceGroup | None = None
    method_id: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    row: int | None = None


@dataclass(frozen=True, kw_only=True)
class RejectedRecord:
    """A record that could not be taken: its key, its place in the file, the reason."""

    key: str
    location: str
    reason: str


class CopiedRecord(NamedTuple):
    """A record that was left out because a structure of another source is its exact copy."""

    structure_id: int
    external_id: str
    row: int | None


@dataclass(frozen=True, eq=False, kw_only=True)
class NewLabel:
    """A label to append to a stored structure; label None with a reason is a failure to remember.

    part 0 has energies and forces; higher parts hold further Hessian rows.
    """

    structure_id: int
    part: int
    label: Label | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """What a repair did. added counts rows made from shards; losses are what shards cannot give back.

    rebuilt is True where the old catalog could not be used at all; kept is where it lies now, None where nothing had to
    be changed. facets counts the shards whose packed columns contradicted their rows. ignored are files in shards/ that
    were not taken, with the reason.
    """

    rebuilt: bool
    shards: int
    structures: int
    labels: int
    kept: str | None
    facets: int = 0
    losses: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class ArrayBatch:
    """Structures and quantities of their labels as flat arrays; structure k has the atoms offsets[k] to offsets[k+1].

    Lengths in Å. values holds the quantities asked for by their names in Label (eV, eV/Å, eV/Å³, positive under
    tension, µB; charge in e and spin_multiplicity of the structure): forces (atoms, 3), stress (structures, 3, 3),
    magmoms and atomic_energies (atoms,), scalars (structures,). present says which structures have each; the values of
    those that have not are NaN.
    """

    ids: Int64[np.ndarray, " structures"]
    offsets: Int64[np.ndarray, " ends"]
    atomic_numbers: UInt8[np.ndarray, " atoms"]
    positions: Float64[np.ndarray, "atoms 3"]
    cells: Float64[np.ndarray, "structures 3 3"]
    pbc: Bool[np.ndarray, "structures 3"]
    values: Mapping[str, Float64[np.ndarray, "..."]]
    present: Mapping[str, Bool[np.ndarray, " structures"]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the catalog says of a structure. volume in Å³; shard is the file that holds its arrays."""

    id: int
    external_id: str
    source: str
    material: str
    chemical_formula_reduced: str
    chemical_system: str
    nsites: int
    nelements: int
    space_group_it_number: int | None
    space_group_symbol: str | None
    symmetry: SymmetryTool | None
    volume: float | None
    pbc: tuple[bool, bool, bool]
    charge: float | None
    spin_multiplicity: int | None
    content_hash: str
    shard: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What verify or gc found: problems are faults, orphans files that no row names, removed what was deleted."""

    shards: int
    records: int
    problems: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when nothing is wrong; an orphan is a leftover, not a fault."""
        return not self.problems
