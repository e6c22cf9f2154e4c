import gzip

import pytest

import mlipdb
from mlipdb.errors import IngestError
from mlipdb.ingest import IngestSettings, ingest
from mlipdb.ingest.files import InputFile, content_sha256, input_files, plain_head
from mlipdb.ingest.readers.extxyz import ExtxyzReader
from mlipdb.ingest.readers.mptrj import MptrjReader
from mlipdb.ingest.stream import FileDigest


@pytest.fixture
def folder(tmp_path):
    """Two extended XYZ files at different depths among others."""
    for name in ("b/run.xyz", "a.xyz", "b/deep/run.xyz.gz", ".hidden.xyz"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f'1\nLattice="3 0 0 0 3 0 0 0 3" energy={len(name)}\nH 0 0 0\n'.encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (tmp_path / "tree" / "README.md").write_text("1 file\nof text\n")
    (tmp_path / "tree" / "empty").write_bytes(b"")
    return tmp_path / "tree"


class FolderReader(ExtxyzReader):
    """Claims folders that hold a file called deep."""

    def claims(self, path, head):
        return "it holds deep" if path.is_dir() and (path / "deep").exists() else None


def test_a_folder_gives_the_files_that_the_reader_claims_by_their_place_in_it(folder):
    names = [file.name for file in input_files([folder], ExtxyzReader())]
    assert names == ["a.xyz", "b/deep/run.xyz.gz", "b/run.xyz"]


def test_a_folder_that_the_reader_claims_is_one_input(folder):
    assert input_files([folder / "b"], FolderReader()) == [InputFile(folder / "b", "b")]
    assert input_files([folder], FolderReader()) == [InputFile(folder / "b", "b")]


def test_files_of_one_name_are_told_apart_by_the_folders_that_differ(folder):
    files = input_files([folder / "a.xyz", folder / "b" / "run.xyz"], ExtxyzReader())
    assert [file.name for file in files] == ["a.xyz", "run.xyz"]
    (folder / "a").mkdir()
    (folder / "a" / "run.xyz").write_bytes((folder / "a.xyz").read_bytes())
    files = input_files([folder / "a" / "run.xyz", folder / "b" / "run.xyz"], ExtxyzReader())
    assert [file.name for file in files] == ["a/run.xyz", "b/run.xyz"]


def test_a_folder_without_a_file_of_the_format_is_an_error_that_says_what_was_looked_for(folder):
    with pytest.raises(IngestError, match=r"no file of this folder looks like mptrj .*\.json.*ingest auto"):
        input_files([folder], MptrjReader())


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(IngestError, match=r"nowhere: cannot be read"):
        input_files([tmp_path / "nowhere"], MptrjReader())


def test_the_head_of_a_cut_gzip_file_is_what_can_be_unpacked(tmp_path):
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 40)[:-9])
    assert plain_head(path, 100) == bytes(range(100))


def test_the_hash_of_a_folder_changes_with_a_name_or_a_byte_inside(folder):
    hashes = {content_sha256(folder, FileDigest())}
    (folder / "empty").rename(folder / "void")
    hashes.add(content_sha256(folder, FileDigest()))
    (folder / "void").write_bytes(b"x")
    hashes.add(content_sha256(folder, FileDigest()))
    assert len(hashes) == 3


def test_a_folder_is_a_source_named_after_it_and_repeating_it_changes_nothing(tmp_path, folder):
    db = mlipdb.create(tmp_path / "db")
    settings = IngestSettings(reader="extxyz", symprec=None)
    report = ingest(db, [folder], settings=settings)
    assert (report.source, report.taken, report.duplicates) == ("tree", 3, 0)
    assert db.entry(db.find("b/deep/run-0")).material == "tree/b/deep/run-0"
    assert set(report.sha256) == {"a.xyz", "b/deep/run.xyz.gz", "b/run.xyz"}
    assert ingest(db, [folder], settings=settings).already_taken == 3
