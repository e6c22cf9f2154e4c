import numpy as np
import pytest

import mlipdb
from mlipdb.errors import ConfigError, NotFoundError, QueryError
from mlipdb.ingest import IngestSettings, describe_source, ingest
from mlipdb.labels import Method
from mlipdb.records import NewStructure
from mlipdb.structures import make_structure
from mlipdb.subsets import freeze
from mlipdb.subsets.leakage import leakage

PERIODIC = (True, True, True)


def salt(numbers, a):
    return make_structure(numbers, [[0, 0, 0], [a / 2] * 3], cell=a * np.eye(3), pbc=PERIODIC)


@pytest.fixture
def pair(tmp_path):
    """Source one: CsCl-like salts of five materials; source two: the same crystals compressed, and two equal frames."""
    db = mlipdb.create(tmp_path / "db")
    method = db.method_id(Method(kind="dft", name="PBE"))
    compounds = [[55, 17], [55, 35], [81, 17], [81, 35], [37, 53]]
    for name, size in (("one", 4.1), ("two", 3.9)):
        source = db.open_source(name, reader="none", uri="made in the test")
        records = [
            NewStructure(structure=salt(numbers, size), label=None, external_id=f"{name}-{i}", material=f"{name}-{i}")
            for i, numbers in enumerate(compounds)
        ]
        if name == "two":  # a material of source one, and a structure of it under another name
            copies = [("one-0", salt([55, 17], 4.2)), ("copy", salt(compounds[1], 4.1))]
            records += [NewStructure(structure=s, label=None, external_id=f"x{m}", material=m) for m, s in copies]
        db.append(records, source_id=source, method_id=method)
    yield db
    db.close()


def by_measure(overlap):
    return {shared.measure: shared for shared in overlap.shared}


def test_two_sources_share_by_material_content_and_crystal(pair):
    report = leakage(pair, "id<=5", "id>5", workers=0)
    overlap = report.overlaps[0]
    found = by_measure(overlap)
    assert (overlap.first_size, overlap.second_size) == (5, 7)
    assert (found["material"].keys, found["material"].second) == (1, 1)
    assert (found["content"].keys, found["content"].second) == (1, 1)
    assert (found["fingerprint"].keys, found["fingerprint"].second) == (5, 7)
    assert found["fingerprint"].other_source == 7
    assert found["material"].examples == ({"key": "one-0", "first": 1, "second": 11},)
    assert report.share == 1.0


def test_frames_that_were_left_out_as_copies_are_shared_content(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    head = "1\nProperties=species:S:1:pos:R:3 energy={0}\nH 0 0 {0}\n"
    for name, start in (("train", 0), ("bench", 6)):  # 6 to 9 are in both
        (tmp_path / f"{name}.xyz").write_text("".join(head.format(number) for number in range(start, start + 10)))
        settings = IngestSettings(reader="extxyz", symprec=None, workers=0, method=Method(kind="dft", name="PBE"))
        report = ingest(db, [tmp_path / f"{name}.xyz"], settings=settings)
    assert (report.taken, report.duplicates) == (6, 4)
    for _ in range(2):  # once more changes nothing
        (overlap,) = leakage(db, 'source="train"', 'source="bench"', measures=("material", "content")).overlaps
        assert (overlap.first_size, overlap.first_copies, overlap.second_size, overlap.second_copies) == (10, 0, 10, 4)
        content = by_measure(overlap)["content"]
        assert (content.keys, content.first, content.second, content.other_source) == (4, 4, 4, 4)
        assert by_measure(overlap)["material"].keys == 0
        assert overlap.share == 0.4
        assert describe_source(db, "bench")["ingested"]["copies"] == [{"of": "train", "frames": 4}]
        ingest(db, [tmp_path / "bench.xyz"], settings=settings)
    (other,) = leakage(db, 'source="bench"', 'source="train"', measures=("content",)).overlaps
    assert (other.first_copies, other.second_copies, by_measure(other)["content"].second) == (4, 0, 4)
    db.close()


def test_nothing_is_shared_by_different_compounds(pair):
    report = leakage(pair, "Cs", "Tl", workers=0)
    assert report.share == 0
    assert all(shared.keys == 0 for shared in report.overlaps[0].shared)


def test_the_parts_of_a_subset_are_compared_each_with_each(pair):
    with pytest.warns(UserWarning, match="split by frame"):
        subset = freeze(pair, "leaky", filter="all", split_by="frame", fractions=(40, 30, 30), seed=3)
    report = leakage(pair, "leaky", workers=0)
    names = [part for part, ids in subset.splits.items() if len(ids)]
    assert [(o.first, o.second) for o in report.overlaps] == [
        (names[i], names[j]) for i in range(len(names)) for j in range(i + 1, len(names))
    ]
    assert report.share > 0


def test_a_split_by_material_shares_no_material_but_may_share_crystals(pair):
    freeze(pair, "fair", filter="all", fractions=(50, 25, 25), seed=1)
    for overlap in leakage(pair, "fair", workers=0).overlaps:
        assert by_measure(overlap)["material"].keys == 0


def test_a_measure_that_is_not_asked_for_is_not_worked_out(pair):
    report = leakage(pair, "id<=5", "id>5", measures=("material",))
    assert [shared.measure for shared in report.overlaps[0].shared] == ["material"]


def test_what_cannot_be_compared_is_said(pair):
    with pytest.raises(ConfigError, match="Did you mean 'content'"):
        leakage(pair, "id<=5", "id>5", measures=("contents",))
    with pytest.raises(QueryError, match="matches no structure"):
        leakage(pair, "id<=5", "Zr")
    with pytest.raises(NotFoundError, match="no frozen subset"):
        leakage(pair, "nothing-of-that-name")
