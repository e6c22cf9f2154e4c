import bz2
import gzip
import hashlib
import lzma
import random

import pytest
import zstandard
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


def zstd(data):
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd}
packings = pytest.mark.parametrize("packing", PACK)


@packings
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=4), st.integers(1, 5000))
def test_several_members_unpack_to_their_joined_content(tmp_path, packing, members, size):
    path = tmp_path / "f"
    path.write_bytes(b"".join(map(PACK[packing], members)) or PACK[packing](b""))
    assert read_all(path, size) == b"".join(members)


@packings
def test_plain_and_packed_files_are_told_apart_by_content_not_by_name(tmp_path, packing):
    (tmp_path / "plain.gz").write_bytes(DATA)
    (tmp_path / "packed.json").write_bytes(PACK[packing](DATA))
    assert read_all(tmp_path / "plain.gz") == read_all(tmp_path / "packed.json") == DATA


def test_a_plain_file_that_begins_like_bzip2_is_plain(tmp_path):
    (tmp_path / "f").write_bytes(b"BZhang et al.\n")
    assert read_all(tmp_path / "f") == b"BZhang et al.\n"


def test_frames_to_skip_before_zstd_data_are_skipped(tmp_path):
    (tmp_path / "f").write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd(DATA))
    assert read_all(tmp_path / "f") == DATA


@packings
def test_zeros_behind_the_last_member_are_padding(tmp_path, packing):
    (tmp_path / "f").write_bytes(PACK[packing](DATA) + bytes(600_000))
    assert read_all(tmp_path / "f") == DATA


@packings
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.9999])
def test_a_cut_file_gives_what_can_be_unpacked_and_then_an_error(tmp_path, packing, keep):
    data = random.Random(1).randbytes(2_000_000)
    packed = PACK[packing](data)
    (tmp_path / "f").write_bytes(packed[: int(len(packed) * keep)])
    parts = []
    with pytest.raises(IngestError, match=f"the {packing} data end before their end mark"):
        parts.extend(parts_of(tmp_path / "f"))
    found = b"".join(parts)
    assert data.startswith(found)
    assert len(found) > (keep - 0.05) * len(data) - BLOCK.get(packing, 0)


BLOCK = {"bzip2": 900_000}  # a block is unpacked whole or not at all


@packings
@pytest.mark.parametrize("size", [1000, 10_000_000])
def test_a_damaged_file_gives_what_comes_before_the_damage(tmp_path, packing, size):
    data = random.Random(2).randbytes(2_000_000)
    packed = bytearray(PACK[packing](data))
    packed[-2 if packing == "zstd" else -6] ^= 0xFF  # in the check sum behind the last byte of data
    (tmp_path / "f").write_bytes(packed)
    parts = []
    with pytest.raises(IngestError, match=f"the {packing} data are damaged"):
        parts.extend(parts_of(tmp_path / "f", size))
    assert b"".join(parts) == data


@packings
def test_damage_in_a_later_member_keeps_the_members_before_it(tmp_path, packing):
    first, second = (random.Random(seed).randbytes(1_500_000) for seed in (3, 4))
    packed = bytearray(PACK[packing](second))
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "f").write_bytes(PACK[packing](first) + packed)
    parts = []
    with pytest.raises(IngestError, match="damaged"):
        parts.extend(parts_of(tmp_path / "f", 1 << 20))
    assert b"".join(parts).startswith(first)


@packings
def test_the_digest_is_of_the_file_on_disk_in_one_pass(tmp_path, packing):
    path = tmp_path / "f"
    path.write_bytes(PACK[packing](DATA))
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
