"""Bundles that earlier releases wrote are taken in, and hold what they held."""

from pathlib import Path

import pytest

import mlipdb
from mlipdb.export import open_bundle, take_bundle
from mlipdb.export.bundle_file import BUNDLE_VERSION
from mlipdb.subsets import load
from mlipdb.testing.samples import harmonic_label, sample_records

KEPT = sorted((Path(__file__).parent.parent / "data").glob("bundle_v*.mlipdb"))


def test_a_bundle_of_every_version_is_kept():
    assert [path.name for path in KEPT] == [f"bundle_v{number + 1}.mlipdb" for number in range(BUNDLE_VERSION)]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_bundle_is_taken_with_everything_in_it(path, tmp_path, same_label):
    db = mlipdb.create(tmp_path / "db")
    with open_bundle(path) as bundle:
        report = take_bundle(db, bundle)
    assert (report.structures, report.labels) == (6, 4)
    for number, record in enumerate(sample_records(6, per_material=2)):
        identity = db.find(f"frame-{number}")
        entry = db.entry(identity)
        assert entry.content_hash == record.structure.content_hash.hex()
        assert (entry.material, entry.space_group_it_number, entry.symmetry.tool) == (record.material, 225, "none")
        found = db.labels(identity)
        same_label(record.label, found[0])
        assert len(found) == (2 if number < 3 else 1)
        if number < 3:
            same_label(harmonic_label(record.structure, seed=101 + number), found[1])
    subset = load(db, "kept-subset")
    assert subset.hash == "d51cb16627b8b5420455fce2ae2f2b854cfa007ad8aaf912e467f8ddd5565830"
    assert {part: len(ids) for part, ids in subset.splits.items()} == {"train": 2, "validation": 0, "test": 4}
    db.close()
