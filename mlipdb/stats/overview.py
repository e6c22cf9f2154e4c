"""What a database holds, or the part of it that a filter matches: plain numbers for people, JSON and plots."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlipdb.stats.histogram import Histogram

CRYSTAL_SYSTEMS = (
    (2, "triclinic"), (15, "monoclinic"), (74, "orthorhombic"), (142, "tetragonal"), (167, "trigonal"),
    (194, "hexagonal"), (230, "cubic"),
)  # fmt: skip


@dataclass(frozen=True)
class ElementCount:
    """In how many structures an element is, and how many atoms of it there are."""

    symbol: str
    structures: int
    atoms: int


@dataclass(frozen=True)
class SpaceGroupCount:
    """How many structures have a space group."""

    number: int
    symbol: str
    structures: int


@dataclass(frozen=True, kw_only=True)
class SourceSummary:
    """A source that the structures come from. duplicates and quarantined are of the whole source, not of a filter."""

    id: int
    name: str
    version: str | None
    reader: str
    licence: str | None
    state: str
    structures: int
    duplicates: int
    quarantined: int


@dataclass(frozen=True, kw_only=True)
class MethodSummary:
    """What a method gave. structures have a label of it, failed those it could not label.

    quantities says how many structures have each; energy_kind is the energy that energy_per_atom (eV/atom) is of: its
    mean, standard deviation, extremes and histogram. max_force is of the largest force of each structure (eV/Å).
    force_components is of a sample, of so many structures as sampled says.
    """

    id: int
    name: str
    kind: str
    code: str | None
    functional: str | None
    weights_sha256: str | None
    package: str | None
    package_version: str | None
    structures: int
    failed: int
    quantities: Mapping[str, int]
    hessian_rows: int
    energy_kind: str | None
    energy_mean: float | None
    energy_deviation: float | None
    energy_lowest: float | None
    energy_highest: float | None
    energy_per_atom: Histogram | None
    max_force: Histogram | None
    force_components: Histogram | None = None
    sampled: int = 0


@dataclass(frozen=True, kw_only=True)
class FindingSummary:
    """What a check at ingest found odd in a source."""

    source: str
    check: str
    severity: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """The structures that a filter matches, in numbers.

    contents is how many of them differ in atoms, cell or positions; fingerprints how many differ by each tool of
    structural fingerprints, with how many structures have one. tags are the commonest values of each name.
    """

    filter: str
    structures: int
    atoms: int
    materials: int
    contents: int
    sizes: Histogram
    smallest: int | None
    median_size: int | None
    largest: int | None
    nelements: Mapping[int, int]
    periodic_directions: Mapping[int, int]
    elements: tuple[ElementCount, ...]
    space_groups: tuple[SpaceGroupCount, ...]
    without_space_group: int
    sources: tuple[SourceSummary, ...]
    methods: tuple[MethodSummary, ...]
    unlabelled: int
    tags: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    fingerprints: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    findings: tuple[FindingSummary, ...] = ()

    @property
    def crystal_systems(self) -> dict[str, int]:
        """How many structures have a space group of each crystal system."""
        counts = dict.fromkeys((name for _, name in CRYSTAL_SYSTEMS), 0)
        for group in self.space_groups:
            counts[crystal_system(group.number)] += group.structures
        return counts

    def describe(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"crystal_systems": self.crystal_systems}


def crystal_system(number: int) -> str:
    """The crystal system of a space group, by its international number."""
    return next(name for last, name in CRYSTAL_SYSTEMS if number <= last)
