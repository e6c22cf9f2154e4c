"""What an exporter is: one file format that a stream of structures and labels is written to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from mlipdb.labels import ARRAYS, ENERGY_KINDS, Label, Method
from mlipdb.records import SpaceGroup
from mlipdb.structures import Structure

GROUP = "mlipdb.exporters"
EXAMPLES = 3  # ids named for each reason to skip
QUANTITIES = (*ENERGY_KINDS, "band_gap", *ARRAYS)


@dataclass(frozen=True, kw_only=True)
class ExportMethod:
    """A method whose labels are written, in the order of ExportItem.labels.

    The first takes a format's standard names; key is what the names of the others begin with. energy is the kind that
    stands under the format's one name for an energy, None where the method gives no energy. id is None for labels that
    came with their structures and whose method nobody named.
    """

    id: int | None
    key: str
    energy: str | None
    method: Method | None


@dataclass(frozen=True, eq=False, kw_only=True)
class ExportItem:
    """A structure to write: what the catalog says of it, its arrays, and its label by each method (None: it has none).

    part is the part of the split that it is in, None without a frozen subset; tags and row as in a Frame.
    """

    id: int
    external_id: str
    source: str
    material: str
    space_group: SpaceGroup | None
    part: str | None
    tags: Mapping[str, str]
    row: int | None
    structure: Structure
    labels: tuple[Label | None, ...]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """methods in the order of an item's labels; about is plain data that says where the file came from."""

    methods: tuple[ExportMethod, ...]
    about: Mapping[str, Any]

    def energy(self, item: ExportItem, place: int = 0) -> float | None:
        """The total energy in eV that stands under the format's one name for it, for the method of a place."""
        label, kind = item.labels[place], self.methods[place].energy
        return None if label is None or kind is None else getattr(label, kind)


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A quantity that the file does not hold although structures have it: how many, and why."""

    what: str
    structures: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Structures that were not written for one reason; examples are ids of the first of them."""

    reason: str
    structures: int
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What one file holds and what it does not. energy is the kind under the format's name, of the first method."""

    path: str = ""
    part: str | None = None
    written: int
    energy: str | None = None
    methods: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    lost: tuple[Lost, ...] = ()
    bytes: int = 0
    beside: tuple[str, ...] = ()


@runtime_checkable
class Exporter(Protocol):
    """A file format. write takes the items as they come and never holds them all.

    suffixes are the endings of its files, the usual one first; "" stands for a folder. What write leaves beside path,
    under names that begin with path's, is kept with it. in_file says that options.about is written into the file.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    in_file: ClassVar[bool]

    def write(self, path: Path, items: Iterator[ExportItem], options: ExportOptions) -> ExportReport:
        """Write a new file or folder; what was written, skipped and lost. Equal items give equal bytes."""
        ...


@dataclass
class Tally:
    """Counts what an exporter writes, skips and loses."""

    written: int = 0
    _lost: dict[tuple[str, str], int] = field(default_factory=dict)
    _skipped: dict[str, list[str]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def lose(self, what: str, why: str) -> None:
        """A quantity of one structure is not in the file."""
        self._lost[what, why] = self._lost.get((what, why), 0) + 1

    def skip(self, item: ExportItem, reason: str) -> None:
        """A structure is not in the file."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        examples = self._skipped.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(item.external_id)

    def without(self, item: ExportItem, held: frozenset[str], *, why: str, first_only: bool = False) -> None:
        """Count what an item has beyond the quantities that the format holds; first_only: of one method alone."""
        for place, label in enumerate(item.labels):
            if label is None:
                continue
            if place and first_only:
                self.lose("labels of further methods", why)
                return
            for name in QUANTITIES:
                if name not in held and getattr(label, name) is not None:
                    self.lose(name, why)
            if label.properties and "properties" not in held:
                self.lose("properties", why)

    def report(self) -> ExportReport:
        """Everything counted."""
        lost = (Lost(what=what, structures=count, why=why) for (what, why), count in sorted(self._lost.items()))
        skipped = (
            Skipped(reason=reason, structures=self._counts[reason], examples=tuple(examples))
            for reason, examples in sorted(self._skipped.items())
        )
        return ExportReport(written=self.written, lost=tuple(lost), skipped=tuple(skipped))
