"""Each reader is given damaged files: it gives frames, refuses records or stops with an mlipdb error, soon."""

import random
import time
from pathlib import Path

import pytest

from mlipdb import registry
from mlipdb.errors import MlipdbError
from mlipdb.testing.fuzzing import read_damaged, samples
from mlipdb.testing.mutations import mutated, random_mutations

INGEST = Path(__file__).resolve().parent.parent / "ingest"
READERS = registry.names("mlipdb.readers")
EACH = 60  # damaged files for each reader; bench/fuzz.py does more
SECONDS = 20  # for all of them; a sample is read in milliseconds


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The samples of the conformance tests, by the name of the reader."""
    found = {}
    for sample in samples(INGEST, tmp_path_factory.mktemp("samples")):
        found.setdefault(sample.name, []).append(sample)
    return found


def test_every_reader_has_a_sample_to_damage(written):
    assert set(written) == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_gives_frames_or_an_error_that_names_it(written, name, tmp_path):
    source, start = random.Random(f"suite {name}"), time.perf_counter()
    for number in range(EACH):
        sample = source.choice(written[name])
        damage = random_mutations(source)
        count, error = read_damaged(sample, mutated(sample.file.read_bytes(), damage), tmp_path / "copy")
        assert error is None or isinstance(error, MlipdbError), (number, damage)
        assert error is None or sample.file.name in str(error), f"{damage}: the error names no file: {error}"
        assert count >= 0
    assert time.perf_counter() - start < SECONDS


@pytest.mark.parametrize("name", READERS)
def test_bytes_of_another_kind_are_refused(written, name, tmp_path):
    source = random.Random(f"noise {name}")
    for data in (b"", b"\0" * 5000, source.randbytes(5000), b"{}", b"[]", b"<a/>", b"\x1f\x8b\x08", b"\xff\xfe{\0"):
        _, error = read_damaged(written[name][0], data, tmp_path / "copy")
        assert error is None or isinstance(error, MlipdbError)
