"""A database keeps what it was given, whole, whatever happens in between."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Select, func, select

import mlipdb
from mlipdb.catalog import LabelRow, ShardRow, StructureRow, StructureTag, SymmetrySetting, Tag
from mlipdb.catalog.rows import tag_ids
from mlipdb.errors import CatalogError, CorruptError, LockedError, NotFoundError
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel, RejectedRecord, SymmetryTool
from mlipdb.store.prepared import prepare_all
from mlipdb.testing.samples import sample_records

PBE = Method(kind="dft", name="PBE/VASP", functional="PBE", code="VASP")
TEACHER = Method(kind="teacher", name="toy", weights_sha256="0" * 64, dtype="float32", e0_convention="e0 included")


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request, tmp_path):
    catalog = "catalog.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgresql_url")
    database = mlipdb.create(tmp_path / "db", catalog=catalog)
    yield database
    database.close()


def fill(db, count=10, start=0):
    source = db.open_source("sample", reader="none", uri="nowhere")
    return db.append(sample_records(count, start=start), source_id=source, method_id=db.method_id(PBE))


def test_a_structure_and_its_label_come_back_bit_for_bit(db):
    ids = fill(db)
    for identity, record in zip(ids, sample_records(10), strict=True):
        structure, label = db.structure(identity), db.labels(identity)[0]
        assert structure.positions.tobytes() == record.structure.positions.tobytes()
        assert structure.cell.tobytes() == record.structure.cell.tobytes()
        assert structure.pbc == record.structure.pbc
        assert label.forces.tobytes() == record.label.forces.tobytes()
        assert label.stress.tobytes() == record.label.stress.tobytes()
        assert label.energy_uncorrected == record.label.energy_uncorrected
        assert label.method == PBE


def test_a_label_that_says_nothing_is_no_label(db):
    source = db.open_source("sample", reader="none", uri="nowhere")
    silent = [replace(record, label=Label(method=PBE)) for record in sample_records(1)]
    [identity] = db.append(silent, source_id=source, method_id=db.method_id(PBE))
    assert db.labels(identity) == []
    assert db.verify(deep=True).ok


def test_bulk_reading_keeps_the_order_that_was_asked_for(db):
    ids = fill(db, 20)
    order = np.random.default_rng(3).permutation(ids)
    assert [structure.id for structure in db.structures(order)] == order.tolist()


def test_the_entry_says_where_a_structure_came_from(db):
    source = db.open_source("sample", reader="none", uri="nowhere")
    tool = SymmetryTool("moyopy", "1.0", 0.01)
    [identity] = db.append(sample_records(1), source_id=source, symmetry=tool)
    entry = db.entry(identity)
    assert (entry.external_id, entry.source, entry.material) == ("frame-0", "sample", "material-0")
    assert (entry.space_group_it_number, entry.space_group_symbol, entry.symmetry) == (225, "Fm-3m", tool)
    assert entry.chemical_formula_reduced == "FLi"
    assert db.find("frame-0") == db.find(str(identity)) == identity


def test_parts_of_a_teacher_label_are_joined(db):
    ids = fill(db, 3)
    method = db.method_id(TEACHER)
    rng = np.random.default_rng(0)
    rows = {part: rng.normal(size=(2, 2, 3)) for part in (1, 2)}
    base = Label(energy_uncorrected=-1.0, atomic_energies=np.array([-0.4, -0.6]), atomic_energies_include_e0=True)
    db.append_labels([NewLabel(structure_id=ids[1], part=0, label=base)], method_id=method)
    for part, numbers in ((1, [5, 0]), (2, [3, 1])):
        more = Label(hessian_row_numbers=np.array(numbers, np.int32), hessian_rows=rows[part])
        db.append_labels([NewLabel(structure_id=ids[1], part=part, label=more)], method_id=method)
    label = db.labels(ids[1])[1]
    assert label.hessian_row_numbers.tolist() == [5, 0, 3, 1]
    assert np.array_equal(label.hessian_rows, np.concatenate([rows[1], rows[2]]))
    assert label.atomic_energies.tolist() == [-0.4, -0.6]
    found = [label for _, label in db.read(ids, method_id=method)]
    assert found[0] is None
    assert found[1].hessian_rows.shape == (4, 2, 3)


def test_a_failed_label_is_a_row_and_its_retry_replaces_it(db):
    ids = fill(db, 1)
    method = db.method_id(TEACHER)
    db.append_labels([NewLabel(structure_id=ids[0], part=0, label=None, reason="no such element")], method_id=method)
    assert len(db.labels(ids[0])) == 1
    db.append_labels([NewLabel(structure_id=ids[0], part=0, label=Label(energy_uncorrected=-1.0))], method_id=method)
    assert db.labels(ids[0])[1].energy_uncorrected == -1.0
    with db.session() as session:
        assert session.scalar(select(func.count()).where(LabelRow.method_id == method)) == 1


def test_two_methods_may_give_the_same_label_to_the_last_bit(db):
    ids = fill(db, 1)
    for version in ("1", "2"):
        method = db.method_id(Method(kind="teacher", name="tiny", package_version=version))
        db.append_labels(
            [NewLabel(structure_id=ids[0], part=0, label=Label(energy_uncorrected=-1.0))], method_id=method
        )
    assert [label.method.package_version for label in db.labels(ids[0])[1:]] == ["1", "2"]
    assert db.verify(deep=True).ok


def test_counts_and_quarantine_stand_with_the_source_and_are_not_doubled(db):
    source = db.open_source("sample", reader="none", uri="nowhere")
    bad = RejectedRecord(key="mp-1", location="byte 17", reason="no forces")
    for _ in range(2):
        db.append([], source_id=source, rejected=[bad], duplicates=1)
    facts = db.source_facts("sample")
    assert (facts["taken"], facts["duplicates"], facts["quarantined"]) == (0, 2, 1)


def test_a_missing_structure_is_an_error_that_names_it(db):
    fill(db, 2)
    with pytest.raises(NotFoundError, match="structure 99"):
        db.structure(99)


def test_a_crash_before_the_rows_leaves_an_orphan_that_verify_names_and_gc_removes(db, monkeypatch):
    fill(db, 4)
    monkeypatch.setattr("mlipdb.database.add_structures", _fail)
    with pytest.raises(RuntimeError):
        fill(db, 4, start=4)
    with db.session() as session:
        assert session.scalar(select(func.count(StructureRow.id))) == 4
        assert session.scalar(select(func.count(ShardRow.id))) == 1
    report = db.verify(deep=True)
    assert report.ok
    assert len(report.orphans) == 1
    assert db.gc().removed == report.orphans
    assert db.verify().orphans == ()
    assert len(db.structures([1, 2, 3, 4])) == 4


def _fail(*_args, **_keywords):
    raise RuntimeError("the power went out")


def test_verify_finds_a_flipped_bit_a_cut_and_a_missing_shard(db):
    for start in (0, 5, 10):
        fill(db, 5, start=start)
    shards = sorted((db.path / "shards").glob("*.lmdb"))
    data = bytearray(shards[0].read_bytes())
    data[len(data) // 2] ^= 4
    shards[0].write_bytes(data)
    os.truncate(shards[1], 4096)
    shards[2].unlink()
    with closing(mlipdb.open(db.path)) as again:
        problems = again.verify().problems
    assert len(problems) == 3
    assert all(shard.name in problem for shard, problem in zip(shards, problems, strict=True))


def test_a_truncated_shard_is_refused_before_it_is_mapped(db):
    fill(db, 5)
    [shard] = (db.path / "shards").glob("*.lmdb")
    os.truncate(shard, 4096)
    with closing(mlipdb.open(db.path)) as again, pytest.raises(CorruptError, match="4096 bytes"):
        again.structure(1)


def test_a_shard_of_another_database_is_refused(tmp_path):
    one, other = mlipdb.create(tmp_path / "one"), mlipdb.create(tmp_path / "other")
    fill(one, 5), fill(other, 5)
    [mine], [theirs] = (one.path / "shards").glob("*.lmdb"), (other.path / "shards").glob("*.lmdb")
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(CorruptError, match="damaged"):
        mlipdb.open(one.path).structure(1)


@pytest.mark.sqlite
def test_a_catalog_of_another_database_is_refused(tmp_path):
    one, other = mlipdb.create(tmp_path / "one"), mlipdb.create(tmp_path / "other")
    for database in (one, other):
        database.engine.dispose()
    (one.path / "catalog.sqlite").write_bytes((other.path / "catalog.sqlite").read_bytes())
    with pytest.raises(CatalogError, match="swapped"):
        mlipdb.open(one.path)


def test_opening_a_folder_without_a_database_says_how_to_make_one(tmp_path):
    with pytest.raises(CatalogError, match="ingest"):
        mlipdb.open(tmp_path)


def test_a_second_writer_is_told_who_writes(db):
    program = f"import mlipdb; mlipdb.open({str(db.path)!r}).close_source(1, state='complete')"
    with db.write():
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "LockedError" in other.stderr
    assert str(os.getpid()) in other.stderr
    assert LockedError.__name__ in other.stderr


def test_a_known_method_is_found_while_another_process_writes(db):
    known = db.method_id(PBE)
    other = mlipdb.open(db.path)
    with other.write():
        assert db.method_id(PBE) == known
        with pytest.raises(LockedError):
            db.method_id(TEACHER)
    other.close()


def test_reading_works_from_many_threads(db):
    ids = fill(db, 50)
    expected = [structure.positions.tobytes() for structure in db.structures(ids)]
    found: list[bool] = []

    def read():
        found.append([structure.positions.tobytes() for structure in db.structures(ids)] == expected)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


FORK = """
import os, sys, mlipdb
db, other = mlipdb.open(sys.argv[1]), mlipdb.open(sys.argv[1])
before = [structure.positions.tobytes() for structure in db.structures(range(1, 21))]
other.structure(1)
db.close(), other.close()  # a connection must not cross the fork
child = os.fork()
same = [structure.positions.tobytes() for structure in db.structures(range(1, 21))] == before
if child == 0:
    os._exit(0 if same else 1)
sys.exit(0 if same and os.waitpid(child, 0)[1] == 0 else 1)
"""


def test_shards_that_are_open_can_be_read_on_both_sides_of_a_fork(db):
    # In a process of its own: this one may have threads of JAX, which make a fork unsafe.
    fill(db, 20)
    done = subprocess.run([sys.executable, "-c", FORK, str(db.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_records_prepared_in_another_process_are_stored_as_if_made_here(db):
    source = db.open_source("sample", reader="none", uri="nowhere")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        ready = pool.submit(prepare_all, sample_records(4)).result()
    ids = db.append([*ready[:2], *sample_records(2, start=2)], source_id=source, method_id=db.method_id(PBE))
    for identity, record in zip(ids, sample_records(4), strict=True):
        assert db.structure(identity).content_hash == record.structure.content_hash
        assert db.labels(identity)[0].content_hash == record.label.content_hash
    assert [item.content_hash for item in ready] == [record.structure.content_hash for record in sample_records(4)]
    assert [item.label_hash for item in ready] == [record.label.content_hash for record in sample_records(4)]
    assert db.query("Li AND Fm-3m").ids.tolist() == [1, 2, 3]


def test_of_a_name_with_many_values_only_those_of_the_batch_are_read(db, monkeypatch):
    with db.write() as session:
        made = tag_ids(session, [("smiles", f"C{number}") for number in range(30)] + [("split", "C3")])
    read = []
    with db.write() as session:
        execute = session.execute

        def counted(*arguments, **keywords):
            result = execute(*arguments, **keywords)
            if isinstance(arguments[0], Select):
                result = result.all()
                read.extend(result)
            return result

        monkeypatch.setattr(session, "execute", counted)
        found = tag_ids(session, [("smiles", "C3"), ("split", "C3"), ("smiles", "new")])
    assert len(read) == 2
    assert {tag: found[tag] for tag in found if tag in made} == {tag: made[tag] for tag in found if tag in made}
    assert found["smiles", "new"] == max(made.values()) + 1


def test_tags_rows_and_methods_of_single_records_are_stored(db):
    source = db.open_source("sample", reader="none", uri="nowhere")
    first, second, third = sample_records(3)
    tagged = [
        replace(first, tags={"split": "train", "subset": "ions"}, row=17),
        replace(second, tags={"split": "train"}, method_id=db.method_id(TEACHER)),
        third,
    ]
    for start in (0, 3):
        again = [replace(record, external_id=f"{record.external_id}-{start}") for record in tagged]
        db.append(again, source_id=source, method_id=db.method_id(PBE))
    with db.session() as session:
        tags = select(StructureTag.structure_id, Tag.name, Tag.value).join(Tag).order_by(StructureTag.structure_id)
        assert sorted(map(tuple, session.execute(tags.where(StructureTag.structure_id > 3)))) == [
            (4, "split", "train"), (4, "subset", "ions"), (5, "split", "train"),
        ]  # fmt: skip
        assert session.scalar(select(func.count(Tag.id))) == 2
        assert session.scalars(select(StructureRow.source_row).order_by(StructureRow.id)).all() == [
            17, None, None, 17, None, None,
        ]  # fmt: skip
    assert [db.labels(identity)[0].method for identity in (4, 5, 6)] == [PBE, TEACHER, PBE]


def test_symmetry_settings_are_stored_once(db):
    source = db.open_source("sample", reader="none", uri="nowhere")
    for start in (0, 2):
        db.append(sample_records(2, start=start), source_id=source, symmetry=SymmetryTool("moyopy", "1.0", 0.01))
    with db.session() as session:
        assert session.scalar(select(func.count(SymmetrySetting.id))) == 1


def test_methods_are_one_by_content_and_two_by_weights(db):
    assert db.method_id(PBE) == db.method_id(Method(kind="dft", name="PBE/VASP", functional="PBE", code="VASP"))
    assert db.method_id(TEACHER) != db.method_id(
        Method(kind="teacher", name="toy", weights_sha256="1" * 64, dtype="float32", e0_convention="e0 included")
    )
