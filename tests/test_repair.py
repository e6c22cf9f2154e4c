"""A catalog that is lost, damaged or behind comes back from the shards; nothing good is written over."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

import mlipdb
from mlipdb.catalog import Facet, LabelRow, ShardRow, StructureElement, StructureRow, StructureTag, Tag
from mlipdb.catalog.facets import shards_without_facets, wrong_facets
from mlipdb.catalog.packing import pack_column
from mlipdb.catalog.schema import upgrade_directory
from mlipdb.errors import CatalogError, LockedError
from mlipdb.labels import Method
from mlipdb.records import NewLabel, SymmetryTool
from mlipdb.repair import repair
from mlipdb.store.lock import WriterLock
from mlipdb.subsets.subset import freeze, load
from mlipdb.testing.samples import harmonic_label, sample_records

PBE = Method(kind="dft", name="PBE/VASP", functional="PBE", code="VASP", settings={"u": [1, 2]})
OTHER = Method(kind="dft", name="r2SCAN", functional="r2SCAN")
TEACHER = Method(kind="teacher", name="toy", weights_sha256="0" * 64)
pytestmark = pytest.mark.sqlite  # what is lost is a file
QUESTIONS = ("all", "Li AND Fm-3m", "gap >= 4", 'nsites=2 AND elements HAS "Cl"')


@pytest.fixture
def filled(tmp_path):
    """Three shards of structures of two sources, with tags, rows, methods and a teacher's labels in two parts."""
    db = mlipdb.create(tmp_path / "db")
    dft, other, teacher = map(db.method_id, (PBE, OTHER, TEACHER))
    for name, start in (("one", 0), ("one", 5), ("two", 10)):
        source = db.open_source(name, reader="none", uri=f"{name}.json", licence="CC0", options={"keys": {"a": "b"}})
        first, second, *rest = sample_records(5, start=start)
        records = [
            replace(first, tags={"split": "train", "kind": name}, row=start),
            replace(second, method_id=other, space_group=None),
            *rest,
        ]
        db.append(records, source_id=source, method_id=dft, symmetry=SymmetryTool("moyopy", "1.0", 0.01))
    for source in ("one", "two"):
        db.close_source(db.source_facts(source)["id"], state="complete")
    for part in (0, 1):
        labels = [harmonic_label(db.structure(identity), seed=identity + part) for identity in (2, 12)]
        parts = [NewLabel(structure_id=i, part=part, label=label) for i, label in zip((2, 12), labels, strict=True)]
        db.append_labels(parts, method_id=teacher)
    db.close()
    return tmp_path / "db"


def answers(path: Path) -> dict:
    """What the rows say, without the numbers that only a catalog gives."""
    db = mlipdb.open(path)
    with db.session() as session:
        columns = [c for c in StructureRow.__table__.columns if c.name not in (
            "source_id", "material_id", "shard_id", "symmetry_setting_id")]  # fmt: skip
        structures = [tuple(row) for row in session.execute(select(*columns).order_by(StructureRow.id))]
        hashes = select(LabelRow.structure_id, LabelRow.part, LabelRow.content_hash, LabelRow.energy_uncorrected)
        labels = sorted(map(tuple, session.execute(hashes)))
        elements = sorted((e.structure_id, e.atomic_number, e.count) for e in session.scalars(select(StructureElement)))
        tagged = select(StructureTag.structure_id, Tag.name, Tag.value).join(Tag)
        tags = sorted(map(tuple, session.execute(tagged)))
    ids = db.query("all").ids.tolist()
    entries = [vars(db.entry(identity)) for identity in ids]
    found = {question: db.query(question).ids.tolist() for question in QUESTIONS}
    methods = [[label.method for label in db.labels(identity)] for identity in ids]
    sources = [{k: v for k, v in db.source_facts(name).items() if k not in ("id", "created_at", "state")}
               for name in ("one", "two")]  # fmt: skip
    assert db.verify(deep=True).problems == ()
    db.close()
    return {"rows": (structures, labels, elements, tags), "entries": entries, "found": found, "methods": methods,
            "sources": sources}  # fmt: skip


def test_a_lost_catalog_comes_back_with_the_same_answers(filled):
    before = answers(filled)
    (filled / "catalog.sqlite").unlink()
    report = repair(filled)
    assert (report.rebuilt, report.shards, report.structures, report.labels) == (True, 5, 15, 19)
    assert report.kept is None
    assert "frozen subsets" in report.losses[0]
    assert answers(filled) == before


def test_a_catalog_that_lost_its_last_rows_gets_them_back_and_keeps_its_subsets(filled, tmp_path):
    db = mlipdb.open(filled)
    frozen = freeze(db, "kept", filter="Li").hash
    db.close()
    shutil.copy(filled / "catalog.sqlite", tmp_path / "old.sqlite")
    db = mlipdb.open(filled)
    source = db.open_source("two", reader="none", uri="two.json")
    db.append(sample_records(4, start=20), source_id=source, method_id=db.method_id(PBE))
    db.close()
    before = answers(filled)
    shutil.copy(tmp_path / "old.sqlite", filled / "catalog.sqlite")
    report = repair(filled)
    assert (report.rebuilt, report.shards, report.structures, report.losses) == (False, 1, 4, ())
    assert report.kept == "catalog.sqlite.before-repair-1"
    assert answers(filled) == before
    with_subset = mlipdb.open(filled)
    assert load(with_subset, "kept").hash == frozen
    with_subset.close()


@pytest.mark.parametrize("damage", ["zeros", "cut", "text"])
def test_a_damaged_catalog_is_named_and_repaired_and_kept(filled, damage):
    before = answers(filled)
    catalog = filled / "catalog.sqlite"
    data = bytearray(catalog.read_bytes())
    if damage == "zeros":
        data[4096 : len(data) // 2] = bytes(len(data) // 2 - 4096)
    broken = {"zeros": bytes(data), "cut": bytes(data[: len(data) // 3]), "text": b"not a database" * 100}[damage]
    catalog.write_bytes(broken)
    with pytest.raises(CatalogError, match="repair"):
        mlipdb.open(filled).verify(deep=True)
    report = repair(filled)
    assert report.rebuilt
    assert (filled / report.kept).read_bytes() == broken
    assert answers(filled) == before


def test_a_repair_with_nothing_to_do_changes_nothing(filled):
    before = (filled / "catalog.sqlite").read_bytes()
    report = repair(filled)
    assert (report.rebuilt, report.structures, report.kept, report.losses) == (False, 0, None, ())
    assert (filled / "catalog.sqlite").read_bytes() == before
    assert sorted(path.name for path in filled.iterdir() if "repair" in path.name) == []


def test_the_leftover_of_a_crash_is_not_taken_for_data(filled, monkeypatch):
    before = answers(filled)
    db = mlipdb.open(filled)
    with monkeypatch.context() as patch:
        patch.setattr("mlipdb.database.add_structures", _fail)
        with pytest.raises(RuntimeError):
            db.append(sample_records(2, start=30), source_id=1)
    source = db.source_facts("two")["id"]
    db.append(sample_records(3, start=40), source_id=source, method_id=db.method_id(PBE))
    db.append(sample_records(3, start=50), source_id=source, method_id=db.method_id(PBE))
    db.close()
    before = answers(filled)
    (filled / "catalog.sqlite").unlink()
    report = repair(filled)
    assert report.structures == 21
    assert "leftover of a crash" in report.ignored[0]
    assert answers(filled) == before


def _fail(*_args, **_keywords):
    raise RuntimeError("the power went out")


def relabel(db, monkeypatch, ids, *, stopped=False):
    """Labels of TEACHER in a shard; stopped before the rows are written."""
    labels = [NewLabel(structure_id=i, part=0, label=harmonic_label(db.structure(i), seed=i)) for i in ids]
    with monkeypatch.context() as patch:
        if not stopped:
            db.append_labels(labels, method_id=db.method_id(TEACHER))
            return
        patch.setattr("mlipdb.database.add_shard", _fail)
        with pytest.raises(RuntimeError):
            db.append_labels(labels, method_id=db.method_id(TEACHER))


@pytest.mark.parametrize("lost", [True, False])
def test_labels_that_a_crash_left_and_the_next_run_stored_again_are_taken_once(filled, monkeypatch, lost):
    db = mlipdb.open(filled)
    relabel(db, monkeypatch, (3, 4), stopped=True)
    relabel(db, monkeypatch, (3, 4, 5))
    db.close()
    before = answers(filled)
    if lost:
        (filled / "catalog.sqlite").unlink()
    report = repair(filled)
    assert len(report.ignored) == 1
    assert "all its labels are in another shard" in report.ignored[0]
    assert (report.shards, report.labels) == ((6, 22) if lost else (0, 0))
    assert answers(filled) == before


def test_of_labels_that_two_shards_share_each_is_taken_once_and_the_shard_is_named(filled, monkeypatch):
    db = mlipdb.open(filled)
    failed = NewLabel(structure_id=3, part=0, label=None, reason="out of memory")
    db.append_labels([failed], method_id=db.method_id(TEACHER))
    relabel(db, monkeypatch, (3, 4), stopped=True)
    relabel(db, monkeypatch, (4, 5))
    db.close()
    report = repair(filled)
    assert (report.shards, report.labels) == (1, 0)  # a label beside a failure that is gone
    assert "1 of its 2 labels are in another shard; the others are taken" in report.ignored[0]
    db = mlipdb.open(filled)
    assert [label.method for label in db.labels(3)][-1] == TEACHER
    assert db.verify(deep=True).problems == ()
    db.close()


def test_a_damaged_shard_is_left_out_and_named(filled):
    shard = sorted((filled / "shards").glob("structures-000000000006-*"))[0]
    data = bytearray(shard.read_bytes())
    data[5000] ^= 1
    shard.write_bytes(data)
    (filled / "catalog.sqlite").unlink()
    report = repair(filled)
    assert report.structures == 10
    assert shard.name in report.ignored[0]
    db = mlipdb.open(filled)
    assert db.query("all").ids.tolist() == [1, 2, 3, 4, 5, 11, 12, 13, 14, 15]
    db.close()


def test_shards_of_format_1_come_back_without_their_origin_and_repair_says_so(tmp_path):
    shutil.copytree(Path(__file__).parent / "data" / "database_v1", tmp_path / "db")
    (tmp_path / "db" / "catalog.sqlite").unlink()
    report = repair(tmp_path / "db")
    assert report.structures == 4
    assert any("does not say where" in loss for loss in report.losses)
    assert any("who made its labels" in loss for loss in report.losses)
    db = mlipdb.open(tmp_path / "db")
    for identity, record in enumerate(sample_records(4), start=1):
        assert db.structure(identity).content_hash == record.structure.content_hash
    assert db.verify(deep=True).problems == ()
    db.close()


def test_a_repair_waits_for_no_writer_but_says_who_writes(filled):
    with WriterLock(filled / "lock"), pytest.raises(LockedError, match="is writing"):
        repair(filled)


def test_a_repair_that_is_stopped_midway_leaves_the_old_catalog(filled, monkeypatch):
    before = (filled / "catalog.sqlite").read_bytes()
    monkeypatch.setattr("mlipdb.repair._settle", _fail)
    with pytest.raises(RuntimeError):
        repair(filled)
    assert (filled / "catalog.sqlite").read_bytes() == before
    assert not list(filled.glob("*repair*"))


def test_facets_that_contradict_the_rows_are_named_and_made_again(filled):
    before = answers(filled)
    db = mlipdb.open(filled)
    with db.write() as session:
        shard = session.get_one(ShardRow, 2).path
        session.execute(
            update(Facet).where(Facet.shard_id == 2, Facet.name == "nsites").values(data=pack_column([7] * 5))
        )
    assert len(db.query("nsites=7")) == 5
    (problem,) = db.verify(deep=True).problems
    assert shard in problem
    assert "`mlipdb repair`" in problem
    db.close()
    report = repair(filled)
    assert (report.rebuilt, report.facets, report.structures) == (False, 1, 0)
    assert report.kept == "catalog.sqlite.before-repair-1"
    db = mlipdb.open(filled)
    assert db.verify(deep=True).ok
    assert len(db.query("nsites=7")) == 0
    db.close()
    assert answers(filled) == before


def test_a_repair_from_the_shards_fills_every_facet(filled):
    (filled / "catalog.sqlite").unlink()
    repair(filled)
    db = mlipdb.open(filled)
    with db.session() as session:
        assert session.scalars(shards_without_facets()).all() == []
        assert wrong_facets(session) == {}
    db.close()


def test_facets_of_which_damage_left_a_part_are_made_again(filled):
    before = answers(filled)
    db = mlipdb.open(filled)
    with db.write() as session:
        session.execute(delete(Facet).where(Facet.name.in_(("ids", "nsites"))))
    db.close()
    upgrade_directory(filled).dispose()
    assert answers(filled) == before
    db = mlipdb.open(filled)
    assert db.verify(deep=True).ok
    db.close()
