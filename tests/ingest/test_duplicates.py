"""Which frames are new, with the memory of what is known and without it."""

import random

import numpy as np
import pytest

import mlipdb
from mlipdb.ingest import IngestSettings, duplicates, ingest
from mlipdb.ingest.membership import Membership, digest_keys, text_keys


def keys(seed, count):
    return np.random.default_rng(seed).integers(0, 2**64, size=(count, 2), dtype=np.uint64)


def test_what_was_added_is_never_called_new():
    members = Membership(first=64)
    known = keys(1, 10_000)
    for start in range(0, len(known), 700):
        members.add(known[start : start + 700])
    assert members.perhaps(known).all()


def test_few_new_keys_are_called_known_however_much_the_set_grew():
    members = Membership(first=8192)
    members.add(keys(1, 50_000))
    assert members.perhaps(keys(2, 20_000)).mean() < 0.1


def test_an_empty_set_knows_nothing():
    assert not Membership().perhaps(text_keys(["a", "b"])).any()
    assert Membership().perhaps(digest_keys([])).shape == (0,)


def test_texts_and_digests_have_keys_of_their_own():
    texts = [f"mp-{number}-0-{number % 7}" for number in range(20_000)]
    assert len(np.unique(text_keys(texts), axis=0)) == len(texts)
    digests = [random.Random(number).randbytes(16) for number in range(1000)]
    assert digest_keys(digests).tobytes() == b"".join(digests)


@pytest.fixture
def growing_files(mptrj_file, record):
    """Three files; each repeats a part of the one before it, under the same ids and under others."""
    files = []
    for part in range(3):
        content = {}
        for number in range(part * 60, part * 60 + 120):
            content.setdefault(f"mp-{number // 10}", {})[f"mp-{number // 10}-0-{number}"] = record(
                mp_id=f"mp-{number // 10}", shift=number / 1024
            )
        content["mp-999"] = {
            f"mp-999-{part}-{number}": record(mp_id="mp-999", shift=number / 1024) for number in range(part * 60 + 5)
        }
        files.append(mptrj_file(content, f"{part}.json"))
    return files


@pytest.mark.parametrize("rows_per_lookup", [0, 10, 10**9])
def test_the_memory_of_what_is_known_changes_no_decision(tmp_path, growing_files, monkeypatch, rows_per_lookup):
    monkeypatch.setattr(duplicates, "ROWS_PER_LOOKUP", rows_per_lookup)  # never, in time, at once
    db = mlipdb.create(tmp_path / "db")
    found = []
    for path in [*growing_files, growing_files[0]]:
        settings = IngestSettings(reader="mptrj", symprec=None, workers=0, batch=32)
        report = ingest(db, [path], settings=settings)
        found.append((report.taken, report.duplicates, report.quarantined, report.already_taken))
    # 120 frames and 5 copies; 60 of 120 and 65 copies known; 60 of 120 and 125 copies known; all known.
    assert found == [(120, 5, 0, 0), (60, 125, 0, 60), (60, 185, 0, 60), (0, 125, 0, 120)]
