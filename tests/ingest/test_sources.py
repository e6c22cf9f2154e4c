import bz2
from dataclasses import replace

import pytest

import mlipdb
from mlipdb import registry
from mlipdb.errors import ConfigError, DownloadError, NotFoundError
from mlipdb.ingest import (
    IngestSettings,
    NoPathError,
    choose,
    describe_source,
    ingest,
    list_sources,
    published_sources,
)
from mlipdb.ingest.published import PublishedSource, published_source
from mlipdb.labels import Method

XYZ = "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy={0}\nH 0 0 {0} 0 0 {1}\n"


def settings(word, **changes):
    return replace(IngestSettings(reader=word, symprec=None, workers=0), **changes)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A cache of its own, in which files can be put as if they had been fetched."""
    monkeypatch.setenv("MLIPDB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.mark.parametrize("source", published_sources().values(), ids=lambda source: source.name)
def test_every_published_source_says_what_a_user_must_know(source: PublishedSource):
    registry.check("mlipdb.readers", source.reader)
    for text in (source.title, source.licence, source.citation, source.theory):
        assert text.strip() == text
        assert text
    assert source.address.startswith("https://")
    assert all(file.url.startswith("https://") for file in source.files)
    assert all(len(file.md5 or "0" * 32) == 32 and len(file.sha256 or "0" * 64) == 64 for file in source.files)
    assert len({file.name for file in source.files}) == len(source.files)
    assert source.fetchable or source.unpack, "what is not fetched must say what to do"
    assert f"mlipdb ingest {source.name} PATH" in source.instructions()


def test_the_sets_that_users_ask_for_are_there():
    wanted = (
        "mptrj mptrj-extxyz spice salex omat24 omol25 matpes-pbe matpes-r2scan alexandria lemat-bulk mdr-phonon mad"
    )
    assert {*wanted.split(), "3bpa", "acac"} <= set(published_sources())
    assert len(published_source("omat24").files) == 22
    assert published_source("omat24").files[0].name == "train/rattled-1000.tar.gz"


def test_an_unknown_source_is_an_error_with_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'matpes-pbe'"):
        published_source("matpes-pbee")
    with pytest.raises(NotFoundError, match="Did you mean 'salex'"):
        describe_source(None, "sallex")


def test_a_source_of_many_files_or_with_a_login_says_what_to_get(cached):
    with pytest.raises(ConfigError) as caught:
        choose(settings("salex"), [])
    message = str(caught.value)
    for part in ("sAlex/train.tar.gz", "tar -xf", "mlipdb ingest salex PATH", "huggingface.co"):
        assert part in message
    with pytest.raises(ConfigError, match="account"):
        choose(settings("omol25"), [])


def test_a_fetchable_source_is_taken_from_the_cache_with_its_facts(cached, shared_data):
    for file in published_source("3bpa").files:
        (cached / file.name).write_bytes((shared_data / "botnet-datasets/dataset_3BPA" / file.name[5:]).read_bytes())
    choice = choose(settings("3bpa"), [], offline=True)
    assert [path.name for path in choice.paths] == ["3bpa_train_300K.xyz", "3bpa_iso_atoms.xyz"]
    assert choice.settings.reader == "extxyz"
    assert (choice.settings.name, choice.settings.licence) == ("3bpa", "MIT")
    assert choice.settings.method.functional == "ωB97X/6-31G(d)"


def test_offline_names_the_file_and_the_place(cached):
    with pytest.raises(DownloadError, match=r"SPICE-2\.0\.1\.hdf5.*md5:bfba2224"):
        choose(settings("spice"), [], offline=True)


def test_a_format_without_a_path_and_auto_without_one_are_usage_errors():
    for word in ("extxyz", "auto"):
        with pytest.raises(NoPathError, match="needs a PATH"):
            choose(settings(word), [])


def test_an_unknown_word_is_an_error_with_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'mptrj'"):
        choose(settings("mptraj"), [])


def test_a_file_of_ones_own_in_a_published_layout_gets_no_licence_but_the_published_file_does(tmp_path):
    own, published = tmp_path / "own.json", tmp_path / "MPtrj_2022.9_full.json"
    for path in (own, published):
        path.write_text("{}")
    assert choose(settings("mptrj"), [own]).settings.licence is None
    chosen = choose(settings("mptrj"), [published]).settings
    assert (chosen.name, chosen.version) == ("mptrj", "2022.9")
    assert "CC BY 4.0" in chosen.licence
    assert chosen.method is None  # the reader knows it


def test_paths_for_a_source_that_is_no_format_are_that_source(tmp_path):
    chosen = choose(settings("salex", name="mine"), [tmp_path]).settings
    assert (chosen.reader, chosen.name, chosen.method.name) == ("aselmdb", "mine", "PBE(+U)/VASP")


def test_auto_finds_the_format_and_the_published_source(tmp_path):
    (tmp_path / "3bpa_train_300K.xyz").write_text(XYZ.format(1, 0))
    choice = choose(settings("auto"), [tmp_path / "3bpa_train_300K.xyz"])
    assert (choice.settings.reader, choice.settings.name) == ("extxyz", "3bpa")
    assert "read as extxyz: its first line is a number of atoms" in choice.notes[0]
    (tmp_path / "own.xyz").write_text(XYZ.format(1, 0))
    choice = choose(settings("auto"), [tmp_path / "own.xyz"])
    assert (choice.settings.reader, choice.settings.licence, len(choice.notes)) == ("extxyz", None, 1)


ALEXANDRIA = {"alexandria_000": "PBE", "alexandria_2d_001": "PBE", "pbe_0000": "PBE", "alexandria_ps_000": "PBEsol",
              "alexandria_ps_2d_000": "PBEsol", "alexandria_scan_000": "SCAN"}  # fmt: skip
ENTRY = '{"entries": [{"@class": "ComputedStructureEntry", "data": {"mat_id": "agm1"}}]}'


@pytest.mark.parametrize(("name", "functional"), ALEXANDRIA.items())
def test_a_file_of_alexandria_is_of_the_functional_that_its_name_says(tmp_path, name, functional):
    path = tmp_path / f"{name}.json.bz2"
    path.write_bytes(bz2.compress(ENTRY.encode(), 1))
    chosen = choose(settings("auto"), [path]).settings
    source = "alexandria" if functional == "PBE" else f"alexandria-{functional.lower()}"
    assert (chosen.name, chosen.method.name) == (source, f"{functional}/VASP")
    assert choose(settings(source), [path]).settings.method.functional == functional


def test_files_of_another_functional_are_refused_for_a_source_and_a_mixed_folder_too(tmp_path):
    (tmp_path / "alexandria_scan_000.json.bz2").write_bytes(bz2.compress(ENTRY.encode(), 1))
    with pytest.raises(ConfigError, match=r"look like alexandria-scan \(SCAN\), not like alexandria \(PBE\)"):
        choose(settings("alexandria"), [tmp_path / "alexandria_scan_000.json.bz2"])
    (tmp_path / "alexandria_000.json.bz2").write_bytes(bz2.compress(ENTRY.encode(), 1))
    for word in ("auto", "alexandria", "alexandria-scan"):
        with pytest.raises(ConfigError, match="ingest alexandria"):
            choose(settings(word), [tmp_path])
    own = Method(kind="dft", name="SCAN/VASP")
    assert choose(settings("alexandria", method=own), [tmp_path]).settings.method == own


def test_a_source_shows_its_facts_files_methods_and_findings(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    head = "2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.5\n"
    rows = [f"{head}H 0 0 0 0 0 500\nH 0 0 {1 + number / 100} 0 0 -500\n" for number in range(29)]
    (tmp_path / "acac_train_300K.xyz").write_text("".join(rows))
    choice = choose(settings("acac"), [tmp_path / "acac_train_300K.xyz"])
    ingest(db, choice.paths, settings=choice.settings)
    facts = describe_source(db, "acac")
    assert facts["published"]["theory"].startswith("PBE")
    found = facts["ingested"]
    assert (found["structures"], found["state"], found["licence"]) == (29, "complete", "MIT")
    assert found["methods"] == [{"name": "PBE", "functional": "PBE", "code": None, "labels": 29}]
    assert found["files"][0]["name"] == "acac_train_300K.xyz"
    assert found["files"][0]["complete"]
    assert "large_forces" in {finding["check"] for finding in found["findings"]}
    listed = {item["name"]: item["ingested"] for item in list_sources(db)}
    assert listed["acac"] == {"state": "complete", "structures": 29, "quarantined": 0}
    assert listed["spice"] is None


def test_a_source_of_the_database_alone_is_shown_too(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    (tmp_path / "own.xyz").write_text(XYZ.format(1, 0))
    ingest(db, [tmp_path / "own.xyz"], settings=settings("extxyz"))
    facts = describe_source(db, "own")
    assert facts["published"] is None
    assert facts["ingested"]["structures"] == 1
    assert list_sources(db)[-1]["name"] == "own"
