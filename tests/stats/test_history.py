import pytest
from sqlalchemy.orm import Session

from mlipdb.catalog import FindingRow, FingerprintTool, StructureFingerprint
from mlipdb.catalog.rows import now
from mlipdb.errors import NotFoundError
from mlipdb.labels import Label
from mlipdb.records import NewStructure
from mlipdb.stats import history
from mlipdb.subsets import freeze


@pytest.fixture
def second(database):
    """The number of a structure of another source that is equal to the first one."""
    source = database.open_source("copy", reader="none", uri="copy.xyz")
    record = NewStructure(
        structure=database.structure(1), label=Label(energy_uncorrected=-1.0), external_id="copied", material="other"
    )
    return database.append([record], source_id=source, method_id=1)[0]


def add(database, *rows):
    with Session(database.engine) as session, session.begin():
        session.add_all(rows)


def test_a_structure_has_its_place_in_the_source_and_its_tags(database):
    found = history(database, 3)
    assert (found.entry.external_id, found.row, found.tags) == ("frame-2", 2, {"split": "train"})
    assert {name: found.source[name] for name in ("licence", "citation", "sha256", "state")} == {
        "licence": "CC-BY-4.0",
        "citation": "A. Author, 2024",
        "sha256": "a" * 64,
        "state": "complete",
    }
    assert [other.external_id for other in found.frames.first] == ["frame-3"]


def test_every_part_of_every_label_is_listed_with_its_shard(database):
    found = history(database, 1)
    parts = [(part.method, part.part, part.status, part.hessian_rows) for part in found.labels]
    assert parts == [("PBE/VASP", 0, "done", 0), ("toy", 0, "done", 0), ("toy", 1, "done", 2)]
    assert found.labels[0].quantities == ("energy_uncorrected", "band_gap", "forces", "stress")
    assert {shard.path for shard in found.shards} == {part.shard for part in found.labels}
    assert all(len(shard.sha256) == 64 and shard.fault is None for shard in found.shards)
    assert found.doubts == ()


def test_a_failed_label_keeps_its_reason(database):
    assert history(database, 5).doubts == ("toy could not label it: K is not known to it",)


def test_a_copy_in_another_source_is_a_doubt_on_both(database, second):
    for identity, other in ((1, "copy"), (second, "made")):
        found = history(database, identity)
        assert [copy.source for copy in found.same_content.first] == [other]
        assert f"the same coordinates are in {other}: mind a split that has both" in found.doubts


def test_the_same_crystal_by_its_fingerprint_is_found_in_other_sources(database, second):
    add(database, FingerprintTool(id=1, tool="sketch", version="1"))
    add(database, *(StructureFingerprint(structure_id=i, tool_id=1, value="abc") for i in (2, second)))
    (mark,) = history(database, 2).fingerprints
    assert (mark.tool, mark.value, [other.id for other in mark.others.first]) == ("sketch", "abc", [second])
    assert "the same crystal by sketch is in copy" in history(database, 2).doubts


def test_an_unfinished_source_without_licence_is_doubted(database, second):
    doubts = history(database, second).doubts
    assert "source copy is not whole: its ingest is ingesting; repeat the ingest to finish it" in doubts
    assert "source copy states no licence" in doubts


def test_findings_of_the_source_are_doubts(database):
    facts = {"check_name": "stress_sign", "severity": "error", "message": "stress has the wrong sign"}
    add(database, FindingRow(source_id=1, details={"slope": -1.0}, created_at=now(), **facts))
    found = history(database, 1)
    assert found.findings[0]["details"] == {"slope": -1.0}
    assert "source made: error: stress has the wrong sign" in found.doubts


def test_the_subsets_that_hold_it_are_named_with_the_part(database):
    frozen = freeze(database, "sodium", filter="Na", fractions=(100, 0, 0))
    (member,) = history(database, 1).memberships
    assert (member.subset, member.split, member.hash, member.runs) == ("sodium", "train", frozen.hash, ())
    assert history(database, 5).memberships == ()


def test_a_shard_that_is_gone_or_cut_is_a_doubt(database):
    path = database.path / history(database, 1).entry.shard
    path.write_bytes(path.read_bytes()[:4096])
    assert any("has 4096 bytes, the catalog says" in doubt for doubt in history(database, 1).doubts)
    path.unlink()
    assert any("cannot be opened (No such file" in doubt for doubt in history(database, 1).doubts)


def test_an_unlabelled_structure_says_so(database):
    assert history(database, 7).doubts == ("it has no label",)


def test_a_number_that_is_not_there_is_an_error(database):
    with pytest.raises(NotFoundError, match="there is no structure 99"):
        history(database, 99)
