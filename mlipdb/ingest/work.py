"""What is done to a block of records wherever it is done: parse, check, hash, find symmetry, compress."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import NamedTuple

from mlipdb.errors import IngestError, MlipdbError
from mlipdb.ingest.blocks import Block, FrameBlock, SplitReader
from mlipdb.ingest.checks import FrameSummaries, summarise
from mlipdb.ingest.reader import Frame, Reader, Rejected
from mlipdb.ingest.symmetry import Search, find_groups
from mlipdb.ingest.symmetry_worker import space_group_numbers
from mlipdb.labels import Method, check_label, label_hash, says_nothing
from mlipdb.records import TEXT_LIMIT, NewStructure, SpaceGroup
from mlipdb.store.prepared import Prepared, prepare_all
from mlipdb.structures import Structure

Groups = Callable[[Sequence[Structure]], list[SpaceGroup | None]]


class Depth(Enum):
    """How much is done: up to the summaries of the checks, up to the hashes that tell duplicates, or all of it."""

    CHECK = 0
    HASH = 1
    WHOLE = 2


@dataclass(frozen=True)
class Task:
    """A block and what to do with it."""

    block: Block
    depth: Depth


class Candidate(NamedTuple):
    """What decides whether a frame is new. method is a place in Done.methods, None for the source's own method."""

    external_id: str
    material: str
    location: str
    structure_hash: bytes
    label_hash: bytes | None
    method: int | None
    row: int | None


@dataclass
class Done:
    """A block that was worked on; items in file order, one of prepared for each Candidate among them (if WHOLE).

    error says why the file cannot be read further behind these items.
    """

    file: str
    depth: Depth
    items: list[Candidate | Rejected] = field(default_factory=list)
    prepared: list[Prepared] = field(default_factory=list)
    methods: list[Method] = field(default_factory=list)
    summaries: FrameSummaries | None = None
    error: str | None = None


@dataclass
class Worker:
    """Does tasks, in this process or another: it can be sent there. symprec is in Å, None for no space groups."""

    reader: Reader
    symprec: float | None
    search: Search = space_group_numbers

    def __call__(self, task: Task) -> Done:
        """Do a task."""
        return self.do(task, self._groups)

    def do(self, task: Task, groups: Groups) -> Done:
        """Do a task with a search for space groups of the caller's choice."""
        done = Done(task.block.file, task.depth)
        frames: list[Frame] = []
        places: list[int] = []
        for item in self._items(task.block, done):
            if isinstance(item, Frame):
                places.append(len(done.items))
                frames.append(item)
            done.items.append(item)  # type: ignore[arg-type]  # a Candidate takes the place of each frame below
        done.summaries = summarise(frames)
        for place, frame in zip(places, frames, strict=True):
            done.items[place] = _candidate(frame, done.methods, hashed=task.depth is not Depth.CHECK)
        if task.depth is Depth.WHOLE:
            found = groups([frame.structure for frame in frames])
            done.prepared = prepare_all([_record(frame, group) for frame, group in zip(frames, found, strict=True)])
        return done

    def _items(self, block: Block, done: Done) -> Iterator[Frame | Rejected]:
        """The records of a block, checked; notes in done where the file is damaged."""
        if isinstance(block, FrameBlock):
            yield from map(_checked, block.items)
            return
        assert isinstance(self.reader, SplitReader)  # its blocks are the ones that are raw
        try:
            for record in block.whole_records():
                yield _checked(self.reader.parse(record, block.path))
        except IngestError as error:
            done.error = str(error)

    def _groups(self, structures: Sequence[Structure]) -> list[SpaceGroup | None]:
        if self.symprec is None:
            return [None] * len(structures)
        return find_groups(structures, partial(self.search, symprec=self.symprec))


def _record(frame: Frame, group: SpaceGroup | None) -> NewStructure:
    return NewStructure(
        structure=frame.structure,
        label=frame.label,
        external_id=frame.external_id,
        material=frame.material,
        space_group=group,
        tags=frame.tags,
        row=frame.row,
    )


def _candidate(frame: Frame, methods: list[Method], *, hashed: bool) -> Candidate:
    label = frame.label
    place = None
    if label is not None and label.method is not None:
        if label.method not in methods:
            methods.append(label.method)
        place = methods.index(label.method)
    structure_hash = frame.structure.content_hash if hashed else b""
    return Candidate(
        frame.external_id,
        frame.material,
        frame.location,
        structure_hash,
        label_hash(label) if hashed and label is not None else None,
        place,
        frame.row,
    )


def _checked(item: Frame | Rejected) -> Frame | Rejected:
    if isinstance(item, Rejected):
        return item
    if (reason := _unfit_name(item)) is not None:
        return Rejected(key=item.external_id, location=item.location, reason=reason)
    if item.label is None:
        return item
    if says_nothing(item.label):
        return replace(item, label=None)
    try:
        check_label(item.label, natoms=len(item.structure), pbc=item.structure.pbc)
    except MlipdbError as error:
        return Rejected(key=item.external_id, location=item.location, reason=str(error))
    return item


def _unfit_name(frame: Frame) -> str | None:
    """Why a name of a frame cannot stand in the catalog, None where all can."""
    names = {"id": frame.external_id, "material": frame.material}
    for what, text in (*names.items(), *((f"tag {name[:80]!r}", name + value) for name, value in frame.tags.items())):
        if len(text) > TEXT_LIMIT // 4 and (size := len(text.encode())) > TEXT_LIMIT:
            return f"the {what} has {size} bytes, more than the {TEXT_LIMIT} that a catalog can index: {text[:80]!r}…"
        if "\0" in text:
            return f"the {what} holds a NUL: {text[:80]!r}"
    return None
