"""Which frames are new: compared by content with the catalog and with what is about to enter it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from sqlalchemy import ColumnElement, and_, func, select

from mlipdb.catalog import LabelRow, Material, StructureRow
from mlipdb.database import Database
from mlipdb.ingest.membership import Membership, digest_keys, text_keys

CHUNK = 500  # below every database's limit of bound parameters
ROWS_PER_LOOKUP = 10  # rows whose keys are read into memory in the time that looking up one frame takes
LOAD = 1 << 16  # rows at a time
Item = TypeVar("Item")
Content = tuple[bytes, bytes | None]  # hashes of a structure and of its label


class Contender(NamedTuple):
    """What decides whether a frame is new. content counts under the method of its label."""

    external_id: str
    material: str
    content: Content
    method_id: int


class Taken(NamedTuple):
    """What an id of the source stands for."""

    material: str
    content: Content
    method_id: int

    def stands_for(self, contender: Contender) -> bool:
        """Whether it is the frame's own content."""
        return (self.content, self.method_id) == (contender.content, contender.method_id)


@dataclass(frozen=True)
class Decision:
    """What becomes of a frame: taken under an id, refused with a conflict, or dropped (``already``: it is there).

    copy_of is the structure of another source whose copy a dropped frame is.
    """

    external_id: str | None = None
    already: bool = False
    conflict: str | None = None
    copy_of: int | None = None


class DuplicateFilter:
    """Decides frame by frame, in file order, so that a repeated run decides the same.

    Same structure and label under the same method, in any source, is a duplicate. An id that stands for other content
    already is qualified with its material (``mp-2/mp-7-0-0``); if that is taken, too, the frame is refused.
    """

    def __init__(self, db: Database, *, source_id: int) -> None:
        self._catalog = _Catalog(db, source_id)
        self._pending = _Known()

    def decide(self, contenders: Sequence[Contender]) -> list[Decision]:
        """A decision for each frame; those to be taken count as known from here on."""
        known = self._look_up(contenders)
        decisions = [self._decide(contender, known) for contender in contenders]
        self._catalog.note(
            [(decision.external_id, contender.content[0])
             for decision, contender in zip(decisions, contenders, strict=True) if decision.external_id is not None]
        )  # fmt: skip
        return decisions

    def all_known(self, contenders: Sequence[Contender]) -> bool:
        """Whether none of the frames is to be taken; nothing counts as known from here on."""
        known = self._look_up(contenders)
        return not any(
            self._free_id(contender, known) is not None and not self._seen(contender, known) for contender in contenders
        )

    def stored(self) -> None:
        """Everything that was to be taken is in the catalog now and needs no place in memory."""
        self._pending = _Known()
        self._catalog.stored()

    def _look_up(self, contenders: Sequence[Contender]) -> "_Known":
        """What the catalog has of these ids and contents."""
        known = _Known()
        groups: dict[int, list[Contender]] = defaultdict(list)
        for contender in contenders:
            groups[contender.method_id].append(contender)
        for method, group in groups.items():
            self._catalog.find_ids([contender.external_id for contender in group], method, known)
            self._catalog.find_contents([contender.content[0] for contender in group], method, known)
            clashes = [contender for contender in group if self._clash(contender, known)]
            self._catalog.find_ids([_qualified(contender) for contender in clashes], method, known)
        return known

    def _clash(self, contender: Contender, known: "_Known") -> bool:
        """Whether another material has the frame's id already."""
        taken = self._taken(contender.external_id, contender, known)
        return taken is not None and taken.material != contender.material

    def _taken(self, name: str, contender: Contender, known: "_Known") -> Taken | None:
        pending = self._pending.ids.get((name, 0))
        return pending or known.ids.get((name, contender.method_id))

    def _seen(self, contender: Contender, known: "_Known") -> bool:
        content, method = contender.content, contender.method_id
        return self._pending.has(content, method) or known.has(content, method)

    def _free_id(self, contender: Contender, known: "_Known") -> str | None:
        """The id that the frame would have if it is new; None where its ids stand for something."""
        for name in (contender.external_id, _qualified(contender)):
            taken = self._taken(name, contender, known)
            if taken is None:
                return name
            if taken.material == contender.material or taken.stands_for(contender):
                return None
        return None

    def _decide(self, contender: Contender, known: "_Known") -> Decision:
        name = self._free_id(contender, known)
        if name is None:
            names = (contender.external_id, _qualified(contender))
            found = [self._taken(name, contender, known) for name in names]
            if any(taken is not None and taken.stands_for(contender) for taken in found):
                return Decision(already=True)
            return Decision(
                conflict=f"the id {contender.external_id!r} stands for another structure or label of this source "
                "already; ingest this file under another --name to keep both"
            )
        content, method = contender.content, contender.method_id
        if self._seen(contender, known):
            return Decision(copy_of=known.elsewhere(content, method))
        # Pending ids stand under no method: an id is used once, whoever made its label.
        self._pending.ids[name, 0] = Taken(contender.material, content, method)
        self._pending.add(content, method)
        return Decision(external_id=name)


class _Known:
    """Ids, by name and the method that was asked about, and contents under methods."""

    def __init__(self) -> None:
        self.ids: dict[tuple[str, int], Taken] = {}
        self._contents: set[tuple[Content, int]] = set()
        self._structures: set[tuple[bytes, int]] = set()
        self._elsewhere: dict[tuple[bytes, bytes | None, int], int] = {}

    def add(self, content: Content, method: int, *, foreign: int | None = None) -> None:
        """Know a content; foreign is the structure that has it where that is another source's."""
        self._contents.add((content, method))
        self._structures.add((content[0], method))
        if foreign is not None:
            for label in (content[1], None):
                key = (content[0], label, method)
                self._elsewhere[key] = min(foreign, self._elsewhere.get(key, foreign))

    def elsewhere(self, content: Content, method: int) -> int | None:
        """The structure of another source that has a content, None where there is none."""
        return self._elsewhere.get((*content, method))

    def has(self, content: Content, method: int) -> bool:
        """Whether a content is known; a structure without a label is where it is known with any."""
        return (content, method) in self._contents or (content[1] is None and (content[0], method) in self._structures)


class _Catalog:
    """The rows that were stored before. What is certainly not among them is not looked up.

    A few bits of memory a row tell, once as many frames were looked up as makes reading the keys of all rows worth its
    time: at once in a new database, never for a small source in a large one.
    """

    def __init__(self, db: Database, source_id: int) -> None:
        self._db = db
        self._source = source_id
        with db.session() as session:
            self._rows = session.scalar(select(func.max(StructureRow.id))) or 0
        self._looked_up = 0  # new frames
        self._coming: list[tuple[str, bytes]] = []  # ids and structures that are not stored yet
        self._members: tuple[Membership, Membership] | None = None  # ids of the source, structures of all

    def note(self, taken: Sequence[tuple[str, bytes]]) -> None:
        """These ids and structures will be stored."""
        self._looked_up += len(taken)
        self._coming += taken
        if self._members is not None:
            _add(self._members, taken)

    def stored(self) -> None:
        """What was to be stored has rows now."""
        self._coming = []

    def find_ids(self, names: Sequence[str], method: int, known: _Known) -> None:
        """Put into known what the source has under these names, with its label by a method."""
        members = self._filters()
        if names and members is not None:
            perhaps = members[0].perhaps(text_keys(list(names))).tolist()
            names = [name for name, maybe in zip(names, perhaps, strict=True) if maybe]
        for part in _parts(sorted(set(names))):
            where = and_(StructureRow.source_id == self._source, StructureRow.external_id.in_(part))
            for name, structure, label, material, _, _ in self._found(where, method):
                known.ids[name, method] = Taken(material, (structure, label), method)

    def find_contents(self, structures: Sequence[bytes], method: int, known: _Known) -> None:
        """Put into known the contents of these structures under a method, in any source."""
        members = self._filters()
        if structures and members is not None:
            perhaps = members[1].perhaps(digest_keys(list(structures))).tolist()
            structures = [structure for structure, maybe in zip(structures, perhaps, strict=True) if maybe]
        for part in _parts(structures):
            for _, structure, label, _, source, number in self._found(StructureRow.content_hash.in_(part), method):
                known.add((structure, label), method, foreign=None if source == self._source else number)

    def _found(
        self, where: ColumnElement[bool], method: int
    ) -> Sequence[tuple[str, bytes, bytes | None, str, int, int]]:
        label = and_(LabelRow.structure_id == StructureRow.id, LabelRow.method_id == method, LabelRow.part == 0)
        row = StructureRow
        columns = (row.external_id, row.content_hash, LabelRow.content_hash, Material.key, row.source_id, row.id)
        statement = select(*columns).outerjoin(LabelRow, label).join(Material, Material.id == StructureRow.material_id)
        with self._db.session() as session:
            return [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in session.execute(statement.where(where))]

    def _filters(self) -> tuple[Membership, Membership] | None:
        """The keys of ids and structures, read where that is worth it."""
        if self._members is None and self._looked_up * ROWS_PER_LOOKUP >= self._rows:
            members = (Membership(), Membership())
            with self._db.session() as session:
                columns = select(StructureRow.source_id, StructureRow.external_id, StructureRow.content_hash)
                for rows in session.execute(columns.execution_options(yield_per=LOAD)).partitions():
                    members[0].add(text_keys([row[1] for row in rows if row[0] == self._source]))
                    members[1].add(digest_keys([row[2] for row in rows]))
            _add(members, self._coming)
            self._members = members
        return self._members


def _add(members: tuple[Membership, Membership], taken: Sequence[tuple[str, bytes]]) -> None:
    members[0].add(text_keys([name for name, _ in taken]))
    members[1].add(digest_keys([structure for _, structure in taken]))


def _qualified(contender: Contender) -> str:
    return f"{contender.material}/{contender.external_id}"


def _parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
