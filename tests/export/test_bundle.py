import json
import shutil
import zipfile

import numpy as np
import pytest
from sqlalchemy import select

import mlipdb
from mlipdb.catalog import Source, StructureRow, SubsetMember
from mlipdb.database import Database
from mlipdb.errors import ConfigError, CorruptError, NotFoundError
from mlipdb.export import make_bundle, open_bundle, take_bundle
from mlipdb.export.items import tags_of
from mlipdb.labels import Method
from mlipdb.records import NewLabel, NewStructure
from mlipdb.subsets import freeze, load
from mlipdb.testing.samples import harmonic_label, rock_salt


@pytest.fixture
def bundle(db, tmp_path):
    """The file of a bundle of everything, with parts of a Hessian and a failure among the labels."""
    rows = np.array([0, 5], dtype=np.int32)
    part = mlipdb.Label(hessian_row_numbers=rows, hessian_rows=np.random.default_rng(3).normal(size=(2, 2, 3)))
    db.append_labels([NewLabel(structure_id=1, part=1, label=part)], method_id=2)
    db.append_labels([NewLabel(structure_id=2, part=0, label=None, reason="out of memory")], method_id=2)
    make_bundle(db, "everything", path=tmp_path / "all.mlipdb")
    return tmp_path / "all.mlipdb"


@pytest.fixture
def create(tmp_path):
    """Makes databases, and closes them after the test."""
    made = []

    def call(name):
        made.append(mlipdb.create(tmp_path / name))
        return made[-1]

    yield call
    for database in made:
        database.close()


@pytest.fixture
def other(create):
    """An empty database."""
    return create("other")


def take(db, path):
    with open_bundle(path) as bundle:
        return take_bundle(db, bundle)


def rows(db):
    """Everything that the catalog says, without the ids of this database."""
    with db.session() as session:
        columns = (StructureRow.id, Source.name, StructureRow.external_id)
        names = {
            number: (source, external)
            for number, source, external in session.execute(select(*columns).join(Source)).all()
        }
        members = session.execute(select(SubsetMember.structure_id, SubsetMember.split)).all()
    found = []
    for number, name in names.items():
        entry = vars(db.entry(number)).copy()
        for key in ("id", "shard"):
            entry.pop(key)
        labels = [(label.method, label.content_hash.hex()) for label in db.labels(number)]
        found.append((name, entry, sorted(labels, key=str)))
    return sorted(found, key=str), sorted((names[number], part) for number, part in members)


def test_the_other_database_has_the_same_rows_records_and_subset(db, other, bundle, same_structure, same_label):
    other.method_id(Method(kind="dft", name="something else first"))
    report = take(other, bundle)
    assert (report.structures, report.structures_known) == (35, 0)
    assert (report.labels, report.labels_known) == (20, 0)  # 18 of the teacher, a Hessian part, a failure
    assert rows(other) == rows(db)
    mine, theirs = load(db, "everything"), load(other, "everything")
    assert theirs.hash == mine.hash == freeze(other, "again", filter="all").hash
    assert theirs.describe() == mine.describe()
    pairs = zip(
        db.read(mine.ids), other.read([other.find(db.entry(i).external_id) for i in mine.ids.tolist()]), strict=True
    )
    for (structure, label), (structure_there, label_there) in pairs:
        same_structure(structure, structure_there)
        same_label(label, label_there)
    teacher = next(label for label in other.labels(other.find("frame-0")) if label.method.kind == "teacher")
    same_label(db.labels(1)[1], teacher)
    assert teacher.hessian_row_numbers.tolist() == [0, 5]
    assert other.verify(deep=True).ok


def test_tags_rows_and_source_facts_go_along(db, other, bundle):
    take(other, bundle)
    assert tags_of(other, [other.find("mp-2")]) == {other.find("mp-2"): {"subset": 'It\'s "quoted"', "level": "3"}}
    assert len(tags_of(other, other.query("all").ids.tolist())) == 4
    facts = other.source_facts("plain")
    assert (facts["licence"], facts["citation"], facts["uri"]) == ("CC0", "Doe (2024)", "plain.json")
    assert (facts["taken"], facts["state"]) == (30, "stopped")
    with other.session() as session:
        found = session.scalars(select(StructureRow.source_row).where(StructureRow.source_row.is_not(None)))
        assert sorted(found) == [2, 3, 4]


def test_taking_it_twice_is_the_same_as_once(other, bundle):
    take(other, bundle)
    before = rows(other), sorted(path.name for path in (other.path / "shards").iterdir())
    report = take(other, bundle)
    assert (report.structures, report.structures_known, report.labels, report.labels_known) == (0, 35, 0, 55)
    assert (rows(other), sorted(path.name for path in (other.path / "shards").iterdir())) == before


def test_a_take_that_was_stopped_anywhere_is_finished_by_the_next(db, bundle, create, tmp_path, monkeypatch):
    monkeypatch.setattr("mlipdb.export.bundle_make.ENCODE", 5)
    monkeypatch.setattr("mlipdb.export.bundle_make.ROWS", 10)
    make_bundle(db, "everything", path=tmp_path / "parts.mlipdb")
    target = create("target")
    stops = 0
    for _ in range(40):
        left = [1]  # one transaction, then the end

        def stopping(self, *args, _left=left, _write=Database.write, **settings):
            _left[0] -= 1
            if _left[0] < 0:
                raise KeyboardInterrupt
            return _write(self, *args, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(Database, "write", stopping)
            try:
                take(target, tmp_path / "parts.mlipdb")
            except KeyboardInterrupt:
                stops += 1
                continue
        break
    assert stops > 12
    assert rows(target) == rows(db)
    target.gc()
    report = target.verify(deep=True)
    assert (report.problems, report.orphans) == ((), ())
    assert target.source_facts("plain")["state"] == "stopped"


def test_the_database_that_made_it_can_take_it(db, bundle):
    before = rows(db)
    assert take(db, bundle).structures == 0
    assert rows(db) == before
    assert db.source_facts("plain")["state"] == "complete"


def test_chosen_methods_leave_the_others_at_home(db, other, tmp_path):
    report = make_bundle(db, "everything", path=tmp_path / "teacher.mlipdb", methods=["nequix-mp-1"])
    assert (report.methods, report.labels) == (("nequix-mp-1",), 18)
    take(other, tmp_path / "teacher.mlipdb")
    assert [label.method.name for label in other.labels(1)] == ["nequix-mp-1"]
    assert next(other.read([1]))[1] is None
    # The rest may follow, in another bundle.
    make_bundle(db, "everything", path=tmp_path / "all.mlipdb")
    report = take(other, tmp_path / "all.mlipdb")
    assert (report.structures, report.labels, report.labels_known) == (0, 35, 18)
    assert rows(other) == rows(db)


def test_many_small_members_are_taken_like_one(db, other, tmp_path, monkeypatch):
    monkeypatch.setattr("mlipdb.export.bundle_make.ENCODE", 2)
    monkeypatch.setattr("mlipdb.export.bundle_make.ROWS", 4)
    monkeypatch.setattr("mlipdb.export.bundle_make.READ", 7)
    make_bundle(db, "everything", path=tmp_path / "all.mlipdb")
    with open_bundle(tmp_path / "all.mlipdb") as bundle:
        assert len(bundle.names("structures")) == 9
        take_bundle(other, bundle)
    assert rows(other) == rows(db)


def test_a_bundle_is_a_zip_file_with_a_manifest_and_repeats_to_the_byte(db, bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        assert "mlipdb bundle take FILE" in archive.read("README.txt").decode()
        manifest = json.loads(archive.read("manifest.json"))
    assert (manifest["format"], manifest["version"], manifest["database"]) == ("mlipdb-bundle", 1, db.uuid)
    make_bundle(db, "everything", path=tmp_path / "again.mlipdb")
    assert (tmp_path / "again.mlipdb").read_bytes() == bundle.read_bytes()


def test_every_damaged_bit_and_every_cut_is_refused_and_nothing_stored(other, bundle, tmp_path):
    whole, random = bundle.read_bytes(), np.random.default_rng(20)
    damaged = tmp_path / "damaged.mlipdb"
    ends = range(8 * (len(whole) - 200), 8 * len(whole))
    for place in [*random.integers(0, 8 * len(whole), 400).tolist(), *ends]:
        copy = bytearray(whole)
        copy[place // 8] ^= 1 << place % 8
        damaged.write_bytes(copy)
        with pytest.raises(CorruptError, match=r"damaged\.mlipdb"):
            take(other, damaged)
    for size in [0, 1, 70, 71, *random.integers(0, len(whole), 100).tolist(), len(whole) - 1]:
        damaged.write_bytes(whole[:size])
        with pytest.raises(CorruptError, match=r"damaged\.mlipdb"):
            take(other, damaged)
    assert rows(other) == ([], [])
    assert not (other.path / "shards").exists()


def rewritten(bundle, target, change):
    """The bundle with its members changed and every hash made to fit again: no accident does that."""
    from mlipdb.export.bundle_file import BundleWriter

    writer = BundleWriter(target)
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        parts = {name: archive.read(name) for name in manifest.pop("parts")}
    for key in ("format", "version"):
        manifest.pop(key)
    change(parts, manifest)
    for name, data in parts.items():
        writer.add(name, data)
    writer.finish(manifest)
    return target


def test_a_bundle_whose_hashes_fit_but_whose_content_does_not_is_refused(other, bundle, tmp_path):
    records = "structures/00000.records"

    def cut(parts, manifest):
        parts[records] = parts[records][:-1]

    def swapped(parts, manifest):
        parts[records] = parts[records][4000:] + parts[records][:4000]

    def without_methods(parts, manifest):
        parts["methods.jsonl.zst"] = b""

    def without_sources(parts, manifest):
        del parts["sources.jsonl.zst"]

    def other_subset(parts, manifest):
        manifest["subset"]["hash"] = "0" * 64

    def fewer(parts, manifest):
        manifest["structures"] -= 1

    for number, change in enumerate((cut, swapped, without_methods, without_sources, other_subset, fewer)):
        path = rewritten(bundle, tmp_path / f"bad{number}.mlipdb", change)
        with pytest.raises(CorruptError, match=rf"record|bad{number}\.mlipdb"):
            take(other, path)
    assert rows(other) == ([], [])


def test_a_later_version_asks_for_an_upgrade(other, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("mlipdb.export.bundle_file.BUNDLE_VERSION", 2)
    later = rewritten(bundle, tmp_path / "later.mlipdb", lambda parts, manifest: None)
    monkeypatch.undo()
    with pytest.raises(CorruptError, match="bundle version 2; this mlipdb reads 1: upgrade"):
        take(other, later)


def test_a_file_that_is_no_bundle_says_so(other, tmp_path):
    (tmp_path / "notes.txt").write_text("Dear diary, " * 20)
    with pytest.raises(CorruptError, match="no mlipdb bundle"):
        take(other, tmp_path / "notes.txt")


def test_other_content_under_the_same_name_is_refused_and_nothing_stored(db, other, bundle):
    source = other.open_source("plain", reader="none", uri="elsewhere")
    record = NewStructure(structure=rock_salt(3, 9, a=4.5), label=None, external_id="frame-7", material="material-2")
    other.append([record], source_id=source)
    before = rows(other)
    with pytest.raises(ConfigError, match="'frame-7' of source 'plain' is another structure"):
        take(other, bundle)
    assert rows(other) == before


def test_another_label_by_the_same_method_is_refused_and_nothing_stored(db, other, bundle):
    source = other.open_source("plain", reader="none", uri="plain.json")
    record = NewStructure(structure=db.structure(8), label=None, external_id="frame-7", material="material-2")
    [number] = other.append([record], source_id=source)
    label = harmonic_label(db.structure(8), seed=1)
    other.append_labels([NewLabel(structure_id=number, part=0, label=label)], method_id=other.method_id(db.method(1)))
    before = rows(other)
    with pytest.raises(ConfigError, match=r"another label by method 'PBE/VASP'.* Nothing was stored"):
        take(other, bundle)
    assert rows(other) == before


def test_another_subset_of_that_name_is_refused(db, other, bundle):
    source = other.open_source("mine", reader="none", uri="mine")
    other.append([NewStructure(structure=rock_salt(), label=None, external_id="x", material="m")], source_id=source)
    freeze(other, "everything", filter="all")
    with pytest.raises(ConfigError, match="the subset 'everything' is another one"):
        take(other, bundle)


def test_a_failure_here_gives_way_to_a_label(db, other, bundle):
    take(other, bundle)
    number = other.find("frame-2")
    teacher = other.method_id(db.method(2))
    with other.write() as session:
        session.execute(
            mlipdb.catalog.LabelRow.__table__.delete().where(mlipdb.catalog.LabelRow.structure_id == number)
        )
    other.append_labels([NewLabel(structure_id=number, part=0, label=None, reason="no")], method_id=teacher)
    report = take(other, bundle)
    assert report.labels == 2
    assert len(other.labels(number)) == 2


def test_a_filter_cannot_be_bundled(db, tmp_path):
    with pytest.raises(NotFoundError, match="no frozen subset 'all'"):
        make_bundle(db, "all", path=tmp_path / "x.mlipdb")


def test_ingesting_the_source_later_adds_what_the_bundle_left_out(create, tmp_path):
    from mlipdb.export import export
    from mlipdb.ingest import IngestSettings, ingest
    from mlipdb.testing.samples import sample_records

    whole = create("whole")
    source = whole.open_source("made", reader="none", uri="nowhere")
    whole.append(sample_records(9), source_id=source, method_id=whole.method_id(Method(kind="dft", name="PBE")))
    export(whole, "all", format="extxyz", path=tmp_path / "made.extxyz")
    settings = IngestSettings(reader="extxyz", name="made", method=Method(kind="dft", name="PBE"), symprec=None)
    first, second = create("first"), create("second")
    ingest(first, [tmp_path / "made.extxyz"], settings=settings)
    freeze(first, "lithium", filter="Li")
    make_bundle(first, "lithium", path=tmp_path / "lithium.mlipdb")
    take(second, tmp_path / "lithium.mlipdb")
    assert len(second.query("all")) == 3
    ingest(second, [tmp_path / "made.extxyz"], settings=settings)
    assert len(second.query("all")) == 9
    assert second.source_facts("made")["state"] == "complete"


def test_a_bundle_is_taken_after_a_copy_of_the_file(db, other, bundle, tmp_path):
    shutil.copy(bundle, tmp_path / "copy.zip")
    assert take(other, tmp_path / "copy.zip").structures == 35
