"""Makes a lost, damaged or outdated catalog good again from the shards, beside the old one, and swaps the two."""

import os
import sqlite3
import uuid as uuids
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from mlipdb.catalog import CatalogInfo, LabelRow, ShardRow, StructureRow
from mlipdb.catalog.engine import make_engine
from mlipdb.catalog.facets import drop_facets, fill_facets, wrong_facets
from mlipdb.catalog.restore import Restorer
from mlipdb.catalog.rows import now
from mlipdb.catalog.schema import upgrade
from mlipdb.errors import CatalogError
from mlipdb.manifest import Manifest, read_manifest
from mlipdb.records import RepairReport
from mlipdb.store.found import FoundShard, find_shards, without_overlap
from mlipdb.store.lock import WriterLock
from mlipdb.store.shard import sync_directory
from mlipdb.version import __version__

LOSSES = (
    "frozen subsets, training runs, quarantined records, findings, fingerprints, disagreements, labels that failed "
    "and which frames were left out as copies are not in shards: freeze, ingest, label and compare again where you "
    "need them"
)


def repair(path: Path | str) -> RepairReport:
    """Give a database directory a catalog that has every whole shard in it.

    A catalog that can be read is copied and gets the rows of shards that it does not name, and new facets where they
    contradict the rows; one that is lost or damaged is made anew. The old one is never written to: it stays beside the
    new one under another name. Raises CatalogError for a catalog in PostgreSQL, LockedError while another process
    writes.
    """
    directory = Path(path)
    manifest = read_manifest(directory)
    if "://" in manifest.catalog:
        raise CatalogError(
            f"{directory}: its catalog is in PostgreSQL ({manifest.catalog}); restore it there from a backup"
        )
    with WriterLock(directory / "lock"), WriterLock(directory / "ingest.lock"):
        draft = directory / f"{manifest.catalog}.repair-{uuids.uuid4().hex[:8]}"
        try:
            return _repair(directory, manifest, draft)
        finally:
            for leftover in directory.glob(f"{draft.name}*"):
                leftover.unlink()


def _repair(directory: Path, manifest: Manifest, draft: Path) -> RepairReport:
    usable = _copy_usable(directory / manifest.catalog, draft, manifest.uuid)
    engine = make_engine(directory, draft.name)
    upgrade(engine)
    shards, ignored = find_shards(directory, uuid=manifest.uuid)
    with Session(engine) as session, session.begin():
        if not usable:
            session.add(CatalogInfo(uuid=manifest.uuid, created_with=__version__, created_at=now()))
            session.flush()
        before = _counts(session)
        missing, left = _missing(session, shards)
        restorer = Restorer(session)
        for shard in missing:
            restorer.add(shard)
        after = _counts(session)
        wrong = wrong_facets(session)
        changed = bool(restorer.added or wrong) or not usable
        if changed:
            drop_facets(session, list(wrong.values()))
            fill_facets(session)
    _settle(engine, draft)
    return RepairReport(
        rebuilt=not usable,
        shards=restorer.added,
        structures=after[0] - before[0],
        labels=after[1] - before[1],
        facets=len(wrong),
        kept=_swap(directory / manifest.catalog, draft) if changed else None,
        losses=(() if usable else (LOSSES,)) + tuple(restorer.losses),
        ignored=(*ignored, *(_why_left(shard) for shard in left), *restorer.ignored),
    )


def _copy_usable(catalog: Path, draft: Path, uuid: str) -> bool:
    """Copy a catalog with all that is committed in it; False where there is none or it is damaged or another's."""
    if not catalog.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{catalog.resolve().as_uri()}?mode=ro", uri=True)) as old:
            if old.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                return False
            if old.execute("SELECT uuid FROM catalog_info").fetchone() != (uuid,):
                return False
            with closing(sqlite3.connect(draft)) as new:
                old.backup(new)
        return True
    except (sqlite3.Error, DatabaseError):
        draft.unlink(missing_ok=True)
        return False


def _counts(session: Session) -> tuple[int, int]:
    structures = session.scalar(select(func.count()).select_from(StructureRow)) or 0
    return structures, session.scalar(select(func.count()).select_from(LabelRow)) or 0


def _missing(session: Session, shards: Sequence[FoundShard]) -> tuple[list[FoundShard], list[FoundShard]]:
    """The shards that the catalog does not name and that fit beside those it names; and those that do not fit."""
    known = set(session.scalars(select(ShardRow.path)))
    columns = (ShardRow.first_structure_id, ShardRow.last_structure_id)
    taken = session.execute(select(*columns).where(ShardRow.kind == "structures")).all()
    fresh = [shard for shard in shards if shard.sealed.path not in known]
    free: list[FoundShard] = []
    left: list[FoundShard] = []
    for shard in fresh:
        first, last = shard.sealed.first_structure_id, shard.sealed.last_structure_id
        overlaps = shard.sealed.kind == "structures" and any(first <= b and last >= a for a, b in taken)
        (left if overlaps else free).append(shard)
    structures, doubled = without_overlap([shard for shard in free if shard.sealed.kind == "structures"])
    labels = [shard for shard in free if shard.sealed.kind != "structures"]
    labels.sort(key=lambda shard: -shard.sealed.records)  # of shards with the same labels the fuller one is taken
    return structures + labels, left + doubled


def _why_left(shard: FoundShard) -> str:
    return (
        f"{shard.sealed.path}: its structure ids are those of another shard, so it is the leftover of a crash "
        f"(`mlipdb gc` removes it)"
    )


def _settle(engine: Engine, draft: Path) -> None:
    """Everything of the draft in one file and on disk."""
    engine.dispose()
    with closing(sqlite3.connect(draft)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
    with draft.open("rb") as file:
        os.fsync(file.fileno())


def _swap(catalog: Path, draft: Path) -> str | None:
    """Put the draft in the catalog's place in one step; the name under which the old one is kept."""
    if not catalog.exists():
        draft.rename(catalog)
        sync_directory(catalog.parent)
        return None
    number = 1
    while (kept := catalog.with_name(f"{catalog.name}.before-repair-{number}")).exists():
        number += 1
    os.link(catalog, kept)
    for suffix in ("-wal", "-shm"):  # SQLite would apply them to the new file; beside the old one they still fit
        extra = catalog.with_name(catalog.name + suffix)
        if extra.exists():
            extra.rename(kept.with_name(kept.name + suffix))
    draft.replace(catalog)
    sync_directory(catalog.parent)
    return kept.name
