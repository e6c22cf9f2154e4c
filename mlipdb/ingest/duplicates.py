"""Which frames are new: compared by content with the catalog and with what is about to enter it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import ColumnElement, and_, select

from mlipdb.catalog import LabelRow, Material, StructureRow
from mlipdb.database import Database
from mlipdb.ingest.reader import Frame
from mlipdb.labels import label_hash

CHUNK = 500  # below every database's limit of bound parameters
Item = TypeVar("Item")
Content = tuple[bytes, bytes | None]  # hashes of a structure and of its label


@dataclass(frozen=True)
class Taken:
    """Content and material that an id of the source stands for."""

    content: Content
    material: str


@dataclass(frozen=True)
class Decision:
    """What becomes of a frame: taken under an id, refused with a conflict, or dropped (``already``: it is there)."""

    external_id: str | None = None
    already: bool = False
    conflict: str | None = None


class DuplicateFilter:
    """Decides frame by frame, in file order, so that a repeated run decides the same.

    Same structure and label under the same method, in any source, is a duplicate. An id that stands for other content
    already is qualified with its material (``mp-2/mp-7-0-0``); if that is taken, too, the frame is refused.
    """

    def __init__(self, db: Database, *, source_id: int, method_id: int) -> None:
        self._db = db
        self._source = source_id
        self._method = method_id
        self._pending_ids: dict[str, Taken] = {}
        self._pending_contents: dict[Content, str] = {}

    def decide(self, frames: Sequence[Frame]) -> list[Decision]:
        """A decision for each frame; those to be taken count as known from here on."""
        contents = [
            (frame.structure.content_hash, label_hash(frame.label) if frame.label else None) for frame in frames
        ]
        ids = self._ids({frame.external_id for frame in frames}) | self._pending_ids
        clashes = [frame for frame in frames if _clash(frame, ids)]
        ids = self._ids({_qualified(frame) for frame in clashes}) | ids
        known = self._contents([structure for structure, _ in contents]) | self._pending_contents.keys()
        structures = {structure for structure, _ in known}
        decisions = []
        for frame, content in zip(frames, contents, strict=True):
            seen = content in known or (content[1] is None and content[0] in structures)
            decision = _decide(frame, content, ids=ids, seen=seen)
            if decision.external_id is not None:
                ids[decision.external_id] = Taken(content, frame.material)
                self._pending_ids[decision.external_id] = ids[decision.external_id]
                self._pending_contents[content] = decision.external_id
                known.add(content)
                structures.add(content[0])
            decisions.append(decision)
        return decisions

    def stored(self, external_ids: Iterable[str]) -> None:
        """These are in the catalog now and need no place in memory."""
        for name in external_ids:
            content = self._pending_ids.pop(name).content
            self._pending_contents.pop(content, None)

    def _ids(self, names: Iterable[str]) -> dict[str, Taken]:
        found = {}
        for part in _parts(sorted(names)):
            where = and_(StructureRow.source_id == self._source, StructureRow.external_id.in_(part))
            for name, structure, label, material in self._rows(where):
                found[name] = Taken((structure, label), material)
        return found

    def _contents(self, hashes: Sequence[bytes]) -> set[Content]:
        found: set[Content] = set()
        for part in _parts(hashes):
            found.update(
                (structure, label) for _, structure, label, _ in self._rows(StructureRow.content_hash.in_(part))
            )
        return found

    def _rows(self, where: ColumnElement[bool]) -> Sequence[tuple[str, bytes, bytes | None, str]]:
        label = and_(LabelRow.structure_id == StructureRow.id, LabelRow.method_id == self._method, LabelRow.part == 0)
        columns = (StructureRow.external_id, StructureRow.content_hash, LabelRow.content_hash, Material.key)
        statement = select(*columns).outerjoin(LabelRow, label).join(Material, Material.id == StructureRow.material_id)
        with self._db.session() as session:
            return [(row[0], row[1], row[2], row[3]) for row in session.execute(statement.where(where))]


def _decide(frame: Frame, content: Content, *, ids: Mapping[str, Taken], seen: bool) -> Decision:
    for name in (frame.external_id, _qualified(frame)):
        taken = ids.get(name)
        if taken is None:
            return Decision() if seen else Decision(external_id=name)
        if taken.content == content:
            return Decision(already=True)
        if taken.material == frame.material:
            break
    return Decision(
        conflict=f"the id {frame.external_id!r} stands for another structure or label of this source already; ingest "
        "this file under another --name to keep both"
    )


def _clash(frame: Frame, ids: Mapping[str, Taken]) -> bool:
    """Whether another material has the frame's id already."""
    taken = ids.get(frame.external_id)
    return taken is not None and taken.material != frame.material


def _qualified(frame: Frame) -> str:
    return f"{frame.material}/{frame.external_id}"


def _parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
