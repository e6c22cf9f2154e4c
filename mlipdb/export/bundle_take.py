"""Take a bundle in: everything is checked before the first byte is stored; taking it twice is the same as once."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
from jaxtyping import Int64
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from mlipdb.catalog import LabelRow, Source, StructureRow, Subset, SubsetMember
from mlipdb.catalog.rows import known_method
from mlipdb.database import Database
from mlipdb.errors import ConfigError, CorruptError
from mlipdb.export.bundle_file import BundleReader, open_bundle_file, sound
from mlipdb.export.bundle_rows import (
    BundledLabel,
    BundledStructure,
    bundled_labels,
    bundled_methods,
    bundled_structures,
)
from mlipdb.labels import check_label
from mlipdb.records import NewLabel, NewStructure

CHUNK = 400


@dataclass(frozen=True, kw_only=True)
class TakeReport:
    """What came in and what was there already; subset is a name under which the members are frozen here, too."""

    path: str
    subset: str
    subset_hash: str
    structures: int
    structures_known: int
    labels: int
    labels_known: int


@contextmanager
def open_bundle(path: Path) -> Iterator[BundleReader]:
    """A bundle after every check that needs no database: hashes, each record against its row, the subset's hash.

    Raises CorruptError that says what does not fit.
    """
    with open_bundle_file(path) as bundle:
        with sound(path):
            _check_content(bundle)
        yield bundle


def _check_content(bundle: BundleReader) -> None:
    manifest, methods = bundle.manifest, bundled_methods(bundle)
    sources = {row["name"] for row in bundle.rows("sources.jsonl.zst")}
    lines: list[bytes] = []
    shapes: list[tuple[int, tuple[bool, bool, bool]]] = []
    labels = 0
    for name in bundle.names("structures"):
        for item in bundled_structures(bundle, name):
            if item.source not in sources or item.number != len(lines) + 1:
                raise CorruptError(f"{bundle.path}: structure {item.number} ({item.external_id!r}) is out of place")
            if item.method is not None:
                methods[item.method]
            lines.append(_line(item.source, item.external_id, item.structure.content_hash))
            shapes.append((len(item.structure), item.structure.pbc))
    for name in bundle.names("labels"):
        for label in bundled_labels(bundle, name):
            methods[label.method]
            labels += 1
            if not 1 <= label.number <= len(lines):
                raise CorruptError(f"{bundle.path}: a label belongs to structure {label.number} of {len(lines)}")
            if label.label is not None:
                natoms, pbc = shapes[label.number - 1]
                check_label(label.label, natoms=natoms, pbc=pbc)
    if (len(lines), labels) != (manifest["structures"], manifest["labels"]):
        raise CorruptError(f"{bundle.path}: {len(lines)} structures and {labels} labels are not what it says it holds")
    if len({line.rpartition(b",")[0] for line in lines}) != len(lines):
        raise CorruptError(f"{bundle.path}: two structures of one source have the same id; make it again")
    if _hash(lines) != manifest["subset"]["hash"]:
        raise CorruptError(
            f"{bundle.path}: its members are not the subset {manifest['subset']['name']!r}; make it again"
        )


def _line(source: str, external_id: str, content_hash: bytes) -> bytes:
    """What a subset's hash is made of; mlipdb.subsets says the same."""
    return json.dumps([source, external_id, content_hash.hex()]).encode()


def _hash(lines: list[bytes]) -> str:
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line + b"\n")
    return digest.hexdigest()


def take_bundle(db: Database, bundle: BundleReader) -> TakeReport:
    """Store what a bundle holds and the database does not: structures, labels, the frozen subset with its split.

    Ids are the database's own. Sources keep their names, so a structure that a source of that name has already is the
    same one. Raises ConfigError, before anything is stored, where the database has other content under the same name.
    """
    taking = _Taking(db, bundle)
    taking.check()
    taking.store()
    return taking.report()


class _Taking:
    """One bundle on its way in. ids[n] is the id here of structure n of the bundle."""

    def __init__(self, db: Database, bundle: BundleReader) -> None:
        self._db, self._bundle = db, bundle
        self._subset = bundle.manifest["subset"]
        self._ids: Int64[np.ndarray, " numbers"] = np.zeros(bundle.manifest["structures"] + 1, dtype=np.int64)
        self._parts: list[str] = [""]
        self._known = self._labels = self._labels_known = 0

    def check(self) -> None:
        """Raise ConfigError where something here has the same name and another content."""
        self._check_subset()
        with self._db.session() as session:
            methods = [known_method(session, method) for method in bundled_methods(self._bundle)]
        for name in self._bundle.names("structures"):
            items = list(bundled_structures(self._bundle, name))
            for item, known in zip(items, self._known_structures(items), strict=True):
                if known is not None and known[1] != item.structure.content_hash:
                    self._refuse(f"{item.external_id!r} of source {item.source!r} is another structure")
                self._ids[item.number] = 0 if known is None else known[0]
            self._check_labels([_own_label(item) for item in items if item.label and item.method is not None], methods)
        for name in self._bundle.names("labels"):
            self._check_labels(list(bundled_labels(self._bundle, name)), methods)

    def _check_labels(self, items: list[BundledLabel], methods: Sequence[int | None]) -> None:
        """Raise ConfigError for a label that a structure here has by the same method with other quantities."""
        for (method, part), group in _by_method(items, methods).items():
            if method is None:
                continue
            known = self._known_labels([int(self._ids[item.number]) for item in group], method=method, part=part)
            for item in group:
                content = known.get(int(self._ids[item.number]))
                if content is not None and item.label is not None and content != item.label.content_hash:
                    name = self._db.method(method).name
                    self._refuse(f"structure {self._ids[item.number]} has another label by method {name!r}")

    def _refuse(self, reason: str) -> NoReturn:
        raise ConfigError(
            f"{self._bundle.path}: in {self._db.path} {reason}, so the two are not the same data. Nothing was stored; "
            "take the bundle into a new database"
        )

    def _check_subset(self) -> None:
        with self._db.session() as session:
            row = session.scalars(select(Subset).where(Subset.name == self._subset["name"])).one_or_none()
            if row is None:
                return
            same = [
                str(getattr(row, key)) == str(self._subset[key]) for key in ("hash", "split_by", "fractions", "seed")
            ]
        if not all(same):
            self._refuse(f"the subset {self._subset['name']!r} is another one")

    def store(self) -> None:
        """Structures, labels, subset; each batch is one transaction, and a run after a kill does what is left."""
        methods = [self._db.method_id(method) for method in bundled_methods(self._bundle)]
        sources = self._open_sources()
        for name in self._bundle.names("structures"):
            self._store_structures(list(bundled_structures(self._bundle, name)), sources=sources, methods=methods)
        for name in self._bundle.names("labels"):
            self._store_labels(list(bundled_labels(self._bundle, name)), methods=methods)
        self._freeze()
        for number, fresh in sources.values():
            if fresh:
                self._db.close_source(number, state="stopped")

    def _open_sources(self) -> dict[str, tuple[int, bool]]:
        """The id here of each source, and whether its end is ours to say: not that of one that was ingested here."""
        found: dict[str, tuple[int, bool]] = {}
        for facts in self._bundle.rows("sources.jsonl.zst"):
            with self._db.session() as session:
                row = session.scalars(select(Source).where(Source.name == facts["name"])).one_or_none()
                known = None if row is None else (row.id, row.state == "ingesting" and "bundle" in row.options)
            if known is None:
                options = {**facts["options"], "bundle": self._subset["name"]}
                known = self._db.open_source(**{**facts, "options": options}), True
            found[facts["name"]] = known
        return found

    def _store_structures(
        self, items: list[BundledStructure], *, sources: dict[str, tuple[int, bool]], methods: list[int]
    ) -> None:
        groups = defaultdict(list)
        left: list[BundledLabel] = []
        for item, known in zip(items, self._known_structures(items), strict=True):
            self._parts.append(item.split)
            if known is None:
                groups[item.source, item.symmetry].append(item)
                continue
            self._ids[item.number] = known[0]
            self._known += 1
            if item.label is not None and item.method is not None:
                left.append(_own_label(item))
        for (source, symmetry), group in groups.items():
            records = [_new_structure(item, methods) for item in group]
            ids = self._db.append(records, source_id=sources[source][0], symmetry=symmetry)
            self._ids[[item.number for item in group]] = ids
        self._store_labels(left, methods=methods)

    def _known_structures(self, items: Sequence[BundledStructure]) -> list[tuple[int, bytes] | None]:
        """Id here and content hash of each item, None for one that is not here."""
        names: dict[str, list[str]] = defaultdict(list)
        for item in items:
            names[item.source].append(item.external_id)
        row, found = StructureRow, dict[tuple[str, str], tuple[int, bytes]]()
        query = select(row.external_id, row.id, row.content_hash).join(Source, Source.id == row.source_id)
        with self._db.session() as session:
            for source, externals in names.items():
                for start in range(0, len(externals), CHUNK):
                    some = query.where(Source.name == source, row.external_id.in_(externals[start : start + CHUNK]))
                    for external, identity, content in session.execute(some):
                        found[source, external] = (identity, bytes(content))
        return [found.get((item.source, item.external_id)) for item in items]

    def _store_labels(self, items: list[BundledLabel], *, methods: Sequence[int]) -> None:
        """Append the labels that are not here, by method and part; a failure here gives way to a label."""
        for (method, part), group in _by_method(items, methods).items():
            ids = [int(self._ids[item.number]) for item in group]
            known = self._known_labels(ids, method=method, part=part)
            fresh = [
                NewLabel(structure_id=identity, part=part, label=item.label, reason=item.reason)
                for identity, item in zip(ids, group, strict=True)
                if identity not in known or (known[identity] is None and item.label is not None)
            ]
            self._labels += len(fresh)
            self._labels_known += len(group) - len(fresh)
            if fresh:
                self._db.append_labels(fresh, method_id=method)

    def _known_labels(self, ids: list[int], *, method: int, part: int) -> dict[int, bytes | None]:
        """Content hash, None for a failure, of each label that is here, by structure."""
        row, found = LabelRow, dict[int, bytes | None]()
        query = select(row.structure_id, row.content_hash).where(row.method_id == method, row.part == part)
        with self._db.session() as session:
            for start in range(0, len(ids), CHUNK):
                some = query.where(row.structure_id.in_(ids[start : start + CHUNK]))
                found.update((identity, content and bytes(content)) for identity, content in session.execute(some))
        return found

    def _freeze(self) -> None:
        """Store the subset with the parts that the bundle gives; nothing where it is there."""
        if _content_hash(self._db, self._ids[1:]) != self._subset["hash"]:
            raise CorruptError(
                f"{self._bundle.path}: what was stored is not what the bundle holds; run `mlipdb verify`"
            )
        with self._db.session() as session:
            if session.scalar(select(Subset.id).where(Subset.name == self._subset["name"])) is not None:
                return
        with self._db.write() as session:
            columns = ("name", "filter", "hash", "size", "split_by", "fractions", "seed")
            row = Subset(**{name: self._subset[name] for name in columns})
            row.created_at = datetime.fromisoformat(self._subset["created_at"])
            session.add(row)
            session.flush()
            self._add_members(session, row.id)

    def _add_members(self, session: Session, subset_id: int) -> None:
        pairs = sorted(zip(self._ids[1:].tolist(), self._parts[1:], strict=True))
        for start in range(0, len(pairs), 10_000):
            rows = [
                {"subset_id": subset_id, "structure_id": identity, "split": part}
                for identity, part in pairs[start : start + 10_000]
            ]
            session.execute(insert(SubsetMember), rows)

    def report(self) -> TakeReport:
        """What was stored."""
        total = len(self._ids) - 1
        return TakeReport(
            path=str(self._bundle.path),
            subset=self._subset["name"],
            subset_hash=self._subset["hash"],
            structures=total - self._known,
            structures_known=self._known,
            labels=self._labels,
            labels_known=self._labels_known,
        )


def _own_label(item: BundledStructure) -> BundledLabel:
    """The label that came with a structure, as one to add."""
    assert item.method is not None  # the caller has looked
    return BundledLabel(number=item.number, method=item.method, part=0, label=item.label, reason=None)


_Method = TypeVar("_Method", int, int | None)


def _by_method(
    items: Sequence[BundledLabel], methods: Sequence[_Method]
) -> dict[tuple[_Method, int], list[BundledLabel]]:
    """Labels by the id here of their method and by part."""
    groups: dict[tuple[_Method, int], list[BundledLabel]] = defaultdict(list)
    for item in items:
        groups[methods[item.method], item.part].append(item)
    return groups


def _new_structure(item: BundledStructure, methods: list[int]) -> NewStructure:
    return NewStructure(
        structure=item.structure,
        label=item.label,
        external_id=item.external_id,
        material=item.material,
        space_group=item.space_group,
        method_id=None if item.method is None else methods[item.method],
        tags=item.tags,
        row=item.row,
    )


def _content_hash(db: Database, ids: Int64[np.ndarray, " members"]) -> str:
    """The hash of a subset of these structures, from the catalog's rows."""
    row, lines = StructureRow, []
    query = select(Source.name, row.external_id, row.content_hash).join(Source, Source.id == row.source_id)
    with db.session() as session:
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK].tolist()
            lines += [_line(*found) for found in session.execute(query.where(row.id.in_(chunk)))]
    return _hash(lines)
