import fcntl
import os
from contextlib import closing

import numpy as np
import pytest

import mlipdb
from mlipdb.errors import ConfigError, CorruptError, LockedError, NotFoundError, QueryError
from mlipdb.export import export
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel
from mlipdb.testing.samples import sample_records


def frames(path):
    return path.read_text().count("Properties=")


def test_a_split_becomes_a_file_for_each_part(db, tmp_path):
    reports = export(db, "everything", format="extxyz", path=tmp_path / "out" / "data.extxyz", split=True)
    assert [report.part for report in reports] == ["train", "validation", "test"]
    assert sum(report.written for report in reports) == 35
    for report in reports:
        assert report.path == str(tmp_path / "out" / f"data-{report.part}.extxyz")
        text = (tmp_path / "out" / f"data-{report.part}.extxyz").read_text()
        assert text.count(f"split={report.part}") == report.written == frames(tmp_path / report.path)


def test_a_filter_has_no_split(db, tmp_path):
    with pytest.raises(ConfigError, match="subset freeze NAME"):
        export(db, "all", format="extxyz", path=tmp_path / "data.extxyz", split=True)


def test_a_file_that_is_there_stays_unless_forced(db, tmp_path):
    path = tmp_path / "data.extxyz"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="exists; --force replaces it"):
        export(db, "all", format="extxyz", path=path)
    assert path.read_text() == "mine"
    export(db, "all", format="extxyz", path=path, force=True)
    assert frames(path) == 35


def test_an_export_that_fails_leaves_nothing(db, tmp_path):
    (db.path / db.entry(35).shard).unlink()
    with closing(mlipdb.open(db.path)) as fresh, pytest.raises(CorruptError, match="is missing"):
        export(fresh, "all", format="extxyz", path=tmp_path / "out" / "data.extxyz")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_export_left_is_cleared_and_the_export_repeated(db, tmp_path):
    left = tmp_path / ".data.extxyz.writing"
    left.mkdir()
    (left / "data.extxyz").write_text("half")
    export(db, "all", format="extxyz", path=tmp_path / "data.extxyz")
    assert frames(tmp_path / "data.extxyz") == 35
    assert not left.exists()


def test_an_export_killed_between_two_renames_is_repeated_without_force(db, tmp_path):
    left = tmp_path / ".data-train.extxyz.writing"
    left.mkdir()
    (left / "moving").touch()
    (tmp_path / "data-train.extxyz").write_text("moved already")
    export(db, "everything", format="extxyz", path=tmp_path / "data.extxyz", split=True)
    assert sum(frames(path) for path in tmp_path.glob("data-*.extxyz")) == 35
    assert not left.exists()


def test_two_exports_to_one_file_exclude_each_other(db, tmp_path):
    scratch = tmp_path / ".data.extxyz.writing"
    scratch.mkdir()
    other = os.open(scratch, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(LockedError, match="another process is writing"):
        export(db, "all", format="extxyz", path=tmp_path / "data.extxyz")
    os.close(other)


def test_a_wrong_suffix_is_refused_with_the_right_ones(db, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.extxyz or"):
        export(db, "all", format="extxyz", path=tmp_path / "data.cif")


def test_a_filter_that_matches_nothing_is_an_error(db, tmp_path):
    with pytest.raises(QueryError, match="nothing to export"):
        export(db, "Au", format="extxyz", path=tmp_path / "data.extxyz")


def test_an_unknown_method_or_energy_gets_a_suggestion(db, tmp_path):
    with pytest.raises(NotFoundError, match=r"Did you mean 'nequix-mp-1'\?"):
        export(db, "all", format="extxyz", path=tmp_path / "a.xyz", methods=["nequix-mp1"])
    with pytest.raises(ConfigError, match=r"Did you mean 'corrected' or"):
        export(db, "all", format="extxyz", path=tmp_path / "a.xyz", energy="corected")
    with pytest.raises(ConfigError, match="no label of this method has free_energy; it has energy_uncorrected"):
        export(db, "all", format="extxyz", path=tmp_path / "a.xyz", energy="free", methods=["nequix-mp-1"])


def test_labels_of_two_levels_of_theory_do_not_share_a_name(db, tmp_path):
    scan = db.method_id(Method(kind="dft", name="r2SCAN/VASP"))
    source = db.open_source("scan", reader="none", uri="nowhere")
    db.append(sample_records(4, start=50), source_id=source, method_id=scan)
    with pytest.raises(ConfigError, match=r"labels of 2 methods: .*--method 1 --method 3"):
        export(db, "all", format="extxyz", path=tmp_path / "a.xyz")
    [report] = export(db, "all", format="extxyz", path=tmp_path / "a.xyz", methods=["r2SCAN/VASP", "1"])
    assert (report.written, report.methods) == (39, ("r2SCAN/VASP", "PBE/VASP"))


def test_two_kinds_of_energy_without_a_plain_one_must_be_told_apart(db, tmp_path):
    method = db.method_id(Method(kind="dft", name="two kinds"))
    label = Label(free_energy=-1.0, energy_zero=-1.1, forces=np.zeros((2, 3)))
    db.append_labels([NewLabel(structure_id=1, part=0, label=label)], method_id=method)
    with pytest.raises(ConfigError, match="free_energy and energy_zero: say which"):
        export(db, "all", format="extxyz", path=tmp_path / "a.xyz", methods=["two kinds"])
    export(db, "all", format="extxyz", path=tmp_path / "a.xyz", methods=["two kinds"], energy="free")
    assert "energy=-1.0" in (tmp_path / "a.xyz").read_text()
