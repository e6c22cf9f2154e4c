import gzip
import hashlib
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlipdb.errors import IngestError
from mlipdb.ingest.stream import ByteStream, FileDigest

DATA = bytes(range(256)) * 300 + b"the end"


def parts_of(path, size=1000, digest=None):
    with ByteStream(path, digest) as stream:
        while part := stream.read(size):
            yield part


def read_all(path, size=1000, digest=None):
    return b"".join(parts_of(path, size, digest))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=4), st.integers(1, 5000))
def test_gzip_of_several_members_unpacks_to_their_joined_content(tmp_path, members, size):
    path = tmp_path / "f.gz"
    path.write_bytes(b"".join(map(gzip.compress, members)) or gzip.compress(b""))
    assert read_all(path, size) == b"".join(members)


def test_plain_and_packed_files_are_told_apart_by_content_not_by_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(DATA)
    (tmp_path / "packed.json").write_bytes(gzip.compress(DATA))
    assert read_all(tmp_path / "plain.gz") == read_all(tmp_path / "packed.json") == DATA


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.9999])
def test_a_cut_gzip_gives_what_can_be_unpacked_and_then_an_error(tmp_path, keep):
    data = random.Random(1).randbytes(50_000)
    packed = gzip.compress(data)
    (tmp_path / "f.gz").write_bytes(packed[: int(len(packed) * keep)])
    parts = []
    with pytest.raises(IngestError, match="end before their end mark"):
        parts.extend(parts_of(tmp_path / "f.gz"))
    found = b"".join(parts)
    assert data.startswith(found)
    assert len(found) > (keep - 0.05) * len(data)


def test_a_damaged_gzip_gives_what_comes_before_the_damage(tmp_path):
    data = random.Random(2).randbytes(50_000)
    packed = bytearray(gzip.compress(data))
    packed[-6] ^= 0xFF  # in the checksum behind the last byte of data
    (tmp_path / "f.gz").write_bytes(packed)
    parts = []
    with pytest.raises(IngestError, match="damaged"):
        parts.extend(parts_of(tmp_path / "f.gz"))
    assert b"".join(parts) == data


def test_the_digest_is_of_the_file_on_disk_in_one_pass(tmp_path):
    path = tmp_path / "f.gz"
    path.write_bytes(gzip.compress(DATA))
    digest = FileDigest()
    read_all(path, digest=digest)
    assert digest.bytes == path.stat().st_size
    assert digest.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_digest_that_saw_a_part_reads_the_file_again(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(DATA)
    digest = FileDigest()
    digest.update(b"something")
    assert digest.sha256(path) == hashlib.sha256(DATA).hexdigest()
