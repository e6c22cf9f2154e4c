"""The decoders of records are given garbage: they say CorruptError or give a record, and never anything else."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlipdb.errors import CorruptError
from mlipdb.labels import Label
from mlipdb.store.codec import Encoder
from mlipdb.store.record import Record
from mlipdb.testing.fuzz_records import decode, decode_together, framed, payload, sealed
from mlipdb.testing.mutations import KINDS, Mutation, mutated
from mlipdb.testing.samples import harmonic_label, rock_salt, water

ID = 7
FULL = Label(
    energy_uncorrected=-1.0,
    energy_zero=-1.5,
    magmoms=np.array([0.5, 1 / 3]),
    atomic_energies=np.array([-0.5, -0.25]),
    atomic_energies_include_e0=True,
    hessian_row_numbers=np.array([0, 5], dtype=np.int32),
    hessian_rows=np.arange(12.0).reshape(2, 2, 3) / 7,
    properties={"a": 1.0, "b": 2.0},
)
PAIRS = [
    (rock_salt(shift=0.123), harmonic_label(rock_salt())),
    (rock_salt(), FULL),
    (water(), None),
    (None, FULL),
]
RECORDS = [Encoder().encode(ID, *pair) for pair in PAIRS]
PAYLOADS = payload(PAIRS)
DAMAGE = st.lists(
    st.builds(Mutation, st.sampled_from(KINDS), st.floats(0, 1), st.integers(0, 2**16 - 1)), min_size=1, max_size=5
)
ANSWERS = (Record, CorruptError)


def assert_a_record_or_corrupt(data):
    assert isinstance(decode(ID, data), ANSWERS)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    assert isinstance(decode(ID, data), CorruptError)
    assert isinstance(decode_together([ID], [data]), CorruptError)


@given(st.sampled_from(RECORDS), DAMAGE)
def test_a_damaged_record_is_refused_by_its_checksum(record, damage):
    data = mutated(record, damage)
    assert isinstance(decode(ID, data), Record if data == record else CorruptError)
    assert isinstance(decode_together([ID], [data]), CorruptError) or data == record


@given(st.sampled_from(RECORDS), st.integers(0, 2**31 - 1))
def test_a_record_under_another_id_is_refused(record, other):
    assert isinstance(decode(other, record), Record if other == ID else CorruptError)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PAYLOADS), DAMAGE)
def test_damage_behind_a_right_checksum_is_a_record_or_corrupt(raw, damage):
    assert_a_record_or_corrupt(sealed(ID, mutated(raw, damage)))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=40), st.binary(max_size=200))
@example(2**32 - 1, 2**32 - 1, b"\xff\xff\x01\x00" + b"\0" * 9, b"")
def test_any_counts_and_signature_behind_a_right_checksum_are_a_record_or_corrupt(natoms, rows, signature, body):
    head = natoms.to_bytes(4, "little") + rows.to_bytes(4, "little") + len(signature).to_bytes(2, "little")
    assert_a_record_or_corrupt(sealed(ID, head + signature + body))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 255))
def test_any_frame_behind_a_right_checksum_is_a_record_or_corrupt(frame, flags):
    for body in (frame, b"\x28\xb5\x2f\xfd" + frame):
        assert_a_record_or_corrupt(framed(ID, body + b"\0" * 12, flags=flags))


@pytest.mark.parametrize("size", [2**33, 2**47, 2**63])
def test_a_frame_that_claims_to_be_huge_is_refused_before_memory_is_taken(size):
    data = framed(ID, b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + b"\x01\0\0" + b"\0" * 8)
    assert all(isinstance(found, CorruptError) for found in within_memory(data))


@pytest.mark.parametrize(
    "raw",
    [PAYLOADS[0][:8], b"\x02\0\0\0\0\0\0\0\x02\0LA" + bytes(60), b"\x03\0\0\0\0\0\0\0\x06\2" + bytes(9) + b"\xbe"],
    ids=["cut", "a field that there is not", "no text"],
)
def test_many_records_with_a_wrong_signature_are_refused(raw):
    assert isinstance(decode_together([ID], [sealed(ID, raw)]), CorruptError)


def test_many_records_with_too_many_atoms_are_refused_before_memory_is_taken():
    raw = (1 << 20).to_bytes(4, "little") + PAYLOADS[0][4:]
    assert all(isinstance(found, CorruptError) for found in within_memory(sealed(ID, raw)))


def within_memory(data):
    """What both decoders say of a record, which takes them less than 10 MB."""
    tracemalloc.start()
    found = decode(ID, data), decode_together([ID], [data])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000
    return found
