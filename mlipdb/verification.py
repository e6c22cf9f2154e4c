"""What verify finds: files that are not what the catalog says, rows that are not what the files hold."""

from collections import Counter, defaultdict
from pathlib import Path

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from mlipdb.catalog import LabelRow, Source, StructureElement, StructureRow
from mlipdb.catalog.facets import wrong_facets
from mlipdb.catalog.lookup import expected_shards
from mlipdb.labels import label_hash
from mlipdb.records import Report
from mlipdb.store.record import Record
from mlipdb.store.verify import ExpectedShard, Records, verify_shards

SHOWN = 20  # problems of one kind that are named one by one


def verify(path: Path, *, engine: Engine, uuid: str, deep: bool) -> Report:
    """Compare every shard with the catalog; with deep, every record with its rows, rows and facets with each other.

    Raises CatalogError where the catalog's file is too damaged to be read.
    """
    problems = _catalog_problems(engine) if deep else []
    with Session(engine) as session:
        expected = expected_shards(session)
    report = verify_shards(path, expected, uuid=uuid, examine=_Rows(engine).differences if deep else None)
    return Report(
        shards=report.shards,
        records=report.records,
        problems=(*problems, *report.problems),
        orphans=report.orphans,
    )


def _catalog_problems(engine: Engine) -> list[str]:
    """What the catalog says against itself."""
    problems = []
    with Session(engine) as session:
        if engine.dialect.name == "sqlite":
            found = session.scalars(text("PRAGMA quick_check(20)")).all()
            problems += [f"catalog: {line}; run `mlipdb repair`" for line in found if line != "ok"]
            broken = session.execute(text("PRAGMA foreign_key_check")).all()[:SHOWN]
            problems += [
                f"catalog: row {row[1]} of {row[0]} names a row of {row[2]} that is not there" for row in broken
            ]
        counts = select(StructureRow.source_id, func.count()).group_by(StructureRow.source_id)
        stored = {row[0]: row[1] for row in session.execute(counts)}
        for source in session.scalars(select(Source)):
            if source.taken != stored.get(source.id, 0):
                problems.append(
                    f"catalog: source {source.name!r} counts {source.taken} structures taken and has "
                    f"{stored.get(source.id, 0)} rows"
                )
        problems += _facet_problems(session)
    return problems


def _facet_problems(session: Session) -> list[str]:
    """The shards whose packed columns, which queries and counts read, are not what their rows say."""
    wrong = list(wrong_facets(session))
    step = "run `mlipdb repair`, which makes them again"
    if session.get_bind().dialect.name != "sqlite":
        step = "empty the table facet and run `mlipdb db upgrade`, which fills it"
    found = [f"catalog: the packed columns (facets) of {path} contradict its rows; {step}" for path in wrong[:SHOWN]]
    hidden = len(wrong) - SHOWN
    return found if hidden <= 0 else [*found, f"catalog: the facets of {hidden} more shards contradict their rows"]


class _Rows:
    """The rows of a shard's records beside the records themselves."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def differences(self, shard: ExpectedShard, records: Records) -> list[str]:
        """What rows say of a shard's records and the records do not."""
        with Session(self._engine) as session:
            columns = (StructureRow.id, StructureRow.content_hash, StructureRow.nsites)
            placed = session.execute(select(*columns).where(StructureRow.shard_id == shard.id))
            structures = {identity: (content, nsites) for identity, content, nsites in placed}
            wanted = select(LabelRow.structure_id, LabelRow.content_hash).where(LabelRow.shard_id == shard.id)
            labels = {row[0]: row[1] for row in session.execute(wanted)}
            elements = _elements(session, structures)
        problems: list[str] = []
        for identity, record in records:
            for difference in _compare(identity, record, structures=structures, labels=labels, elements=elements):
                problems.append(f"{shard.path}: structure {identity}: {difference}")
        hidden = len(problems) - SHOWN
        return problems if hidden <= 0 else [*problems[:SHOWN], f"{shard.path}: {hidden} more differences"]


def _elements(session: Session, ids: dict[int, tuple[bytes, int]]) -> dict[int, Counter[int]]:
    """Counts of elements by structure; the ids of a shard are neighbours."""
    found: dict[int, Counter[int]] = defaultdict(Counter)
    if ids:
        wanted = select(StructureElement).where(StructureElement.structure_id.between(min(ids), max(ids)))
        for row in session.scalars(wanted):
            found[row.structure_id][row.atomic_number] = row.count
    return found


def _compare(
    identity: int,
    record: Record,
    *,
    structures: dict[int, tuple[bytes, int]],
    labels: dict[int, bytes | None],
    elements: dict[int, Counter[int]],
) -> list[str]:
    """What is wrong with one structure."""
    problems = []
    structure, label = record.structure, record.label
    if identity in structures:
        content, nsites = structures[identity]
        if structure is None:
            return ["the record has no structure"]
        if structure.content_hash != content:
            problems.append(f"content hash {structure.content_hash.hex()}, the row says {content.hex()}")
        if len(structure) != nsites:
            problems.append(f"{len(structure)} atoms, the row says {nsites}")
        if structure.composition != dict(elements[identity]):
            problems.append(f"elements {structure.composition}, the rows say {dict(elements[identity])}")
    elif structure is not None:
        problems.append("no row names it")
    if identity in labels and (label is None or label_hash(label) != labels[identity]):
        problems.append("the label is not the one that the row describes")
    return problems
