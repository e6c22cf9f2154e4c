"""Files, folders, names and options that do not go together, or not with what was ingested before."""

import shutil

import pytest

XYZ = "1\nProperties=species:S:1:pos:R:3 {}\nH 0 0 0\n"


def write(folder, name="a.xyz", facts="energy=-1", count=1):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(XYZ.format(facts.replace("#", str(number))) for number in range(count)))
    return path


@pytest.fixture
def ingest(empty):
    """The words of an ingest of extended XYZ into an empty database."""
    return lambda *words: ("--db", empty, "ingest", *words, "--no-symmetry", "--workers", 0)


# (what is wrong, contents of the comment line, options, parts of the message)
AMBIGUOUS = [
    ("two energies that differ", "energy=-1 REF_energy=-2", [], ("energy", "REF_energy", "--key energy=REF_energy")),
    ("a key that is not there", "energy=-1", ["--key", "energy=E"], ("E",)),
    ("a quantity that there is not", "energy=-1", ["--key", "enrgy=energy"], ("enrgy", "energy")),
    ("a unit that there is not", "energy=-1", ["--unit", "energy=kcla/mol"], ("kcla/mol", "kcal/mol")),
    ("a unit of a quantity that there is not", "energy=-1", ["--unit", "enrgy=eV"], ("enrgy", "energy")),
]


@pytest.mark.parametrize(
    ("facts", "options", "parts"), [case[1:] for case in AMBIGUOUS], ids=[case[0] for case in AMBIGUOUS]
)
def test_what_could_mean_two_things_is_refused_and_nothing_stored(
    ingest, empty, command, rows, tmp_path, facts, options, parts
):
    path = write(tmp_path, facts=facts)
    code, shown, talk = command(*ingest("extxyz", path, *options))
    assert code == 1 or "quarantined  1" in shown, talk
    for part in parts:
        assert part in shown + talk, f"{part!r} is not in {shown + talk}"
    assert '"structure": 0' in rows(empty)


def test_the_same_file_twice_is_refused(ingest, refused, tmp_path):
    path = write(tmp_path)
    refused(*ingest("extxyz", path, path), parts=("a.xyz", "twice"))


def test_an_empty_folder_is_refused_with_what_was_looked_for(ingest, refused, tmp_path):
    (tmp_path / "folder").mkdir()
    refused(*ingest("extxyz", tmp_path / "folder"), parts=("folder", "extxyz", ".extxyz"), lines=2)


def test_a_file_that_cannot_be_read_says_why(ingest, refused, tmp_path):
    (tmp_path / "loop.xyz").symlink_to(tmp_path / "loop.xyz")
    refused(*ingest("extxyz", tmp_path / "loop.xyz"), parts=("loop.xyz", "cannot be read"))


def test_another_file_under_the_name_of_a_source_is_refused(ingest, empty, command, refused, rows, tmp_path):
    assert command(*ingest("extxyz", write(tmp_path, count=2), "--name", "set"))[0] == 0
    before = rows(empty)
    write(tmp_path, facts="energy=-9", count=3)
    refused(*ingest("extxyz", tmp_path / "a.xyz", "--name", "set"), parts=("a.xyz", "'set'", "--name"))
    assert rows(empty) == before


def test_other_settings_under_the_name_of_a_source_are_refused(ingest, empty, command, refused, rows, tmp_path):
    path = write(tmp_path)
    assert command(*ingest("extxyz", path, "--name", "set"))[0] == 0
    before = rows(empty)
    words = ingest("extxyz", path, "--name", "set", "--unit", "energy=hartree")
    refused(*words, parts=("'set'", "hartree", "--name"))
    assert rows(empty) == before


def test_another_format_under_the_name_of_a_source_is_refused(ingest, command, refused, sample_files, tmp_path):
    assert command(*ingest("extxyz", write(tmp_path), "--name", "set"))[0] == 0
    path = shutil.copy(sample_files["mptrj"].path, tmp_path)
    refused(*ingest("mptrj", path, "--name", "set"), parts=("'set'", "mptrj", "extxyz"))


def test_a_file_of_another_format_is_refused(ingest, empty, refused, rows, sample_files, tmp_path):
    path = shutil.copy(sample_files["spice"].path, tmp_path)
    refused(*ingest("mptrj", path), parts=("sample.hdf5",))
    assert '"structure": 0' in rows(empty)


def test_a_folder_of_several_formats_says_which(ingest, refused, sample_files, tmp_path):
    folder = tmp_path / "mixed"
    write(folder)
    shutil.copy(sample_files["mptrj"].path, folder / "b.json")
    refused(*ingest("auto", folder), parts=("several formats", "extxyz", "mptrj"), lines=8)


def test_text_that_is_no_format_is_refused_with_the_formats_that_there_are(ingest, refused, tmp_path):
    (tmp_path / "notes.txt").write_text("Dear diary")
    refused(*ingest("auto", tmp_path / "notes.txt"), parts=("notes.txt", "extxyz", "vasprun"), lines=30)
