"""The record codec gives back every bit, and notices every flipped one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlipdb.errors import CorruptError
from mlipdb.labels import Label
from mlipdb.store.codec import FORMAT_VERSION, Decoder, Encoder
from mlipdb.store.decimals import decode_floats, encode_floats
from mlipdb.structures import Structure, make_structure

FIXTURE = Path(__file__).parent.parent / "data" / "record_v1.bin"
KEY = (7).to_bytes(8)


def rock_salt() -> Structure:
    return make_structure(
        [11, 17],
        [[0.0, 0.0, 0.0], [2.82, 2.82, 2.8200000000000003]],
        cell=np.eye(3) * 5.64,
        pbc=(True, True, True),
        charge=0.0,
    )


def full_label() -> Label:
    return Label(
        energy_uncorrected=-6.78912345,
        energy_corrected=-7.1,
        band_gap=0.0,
        forces=np.array([[0.1, -0.0, 1e-300], [-0.1, 0.0, 12345.678901234]]),
        stress=np.full((3, 3), 1 / 3),
        magmoms=np.array([0.001, -2.5]),
        atomic_energies=np.array([-3.3, -3.4], dtype=np.float32).astype(np.float64),
        atomic_energies_include_e0=True,
        hessian_row_numbers=np.array([4, 1], np.int32),
        hessian_rows=np.arange(12.0).reshape(2, 2, 3) / 7,
        properties={"ef_per_atom": -1.25, "something new": 3.0},
    )


def bits(values: np.ndarray) -> list[int]:
    return np.ascontiguousarray(values, np.float64).view(np.int64).ravel().tolist()


@given(hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_any_float_array_comes_back_bit_for_bit(values):
    form, data = encode_floats(values)
    decoded, end = decode_floats(form, b"xyz" + data, 3, len(values))
    assert bits(decoded) == bits(values)
    assert end == len(data) + 3


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=40), st.integers(-3, 3))
def test_decimals_and_their_neighbours_come_back_and_take_at_most_five_bytes(counts, ulps):
    values = np.array(counts) / 1e8
    values.view(np.int64)[values != 0] += ulps
    form, data = encode_floats(values)
    assert bits(decode_floats(form, data, 0, len(values))[0]) == bits(values)
    assert len(data) <= 5 * len(values)


def test_a_full_record_comes_back_with_every_field():
    record = Decoder().decode(KEY, Encoder().encode(KEY, rock_salt(), full_label()))
    wanted, found = full_label(), record.label
    assert record.structure.id == 7
    assert record.structure.content_hash == rock_salt().content_hash
    assert record.structure.charge == 0.0
    for name in ("forces", "stress", "magmoms", "atomic_energies", "hessian_rows"):
        assert bits(getattr(found, name)) == bits(getattr(wanted, name)), name
        assert getattr(found, name).shape == getattr(wanted, name).shape
    assert found.hessian_row_numbers.tolist() == [4, 1]
    assert (found.energy_uncorrected, found.energy_corrected, found.band_gap) == (-6.78912345, -7.1, 0.0)
    assert found.free_energy is None
    assert found.atomic_energies_include_e0 is True
    assert found.properties == wanted.properties


def test_a_label_without_a_structure_comes_back_alone():
    record = Decoder().decode(KEY, Encoder().encode(KEY, None, full_label()))
    assert record.structure is None
    assert record.label.hessian_rows.shape == (2, 2, 3)


def test_an_absent_quantity_stays_absent_and_is_never_zero():
    label = Decoder().decode(KEY, Encoder().encode(KEY, rock_salt(), Label(energy_uncorrected=-1.0))).label
    assert (label.forces, label.stress, label.band_gap, label.atomic_energies_include_e0) == (None,) * 4


@settings(max_examples=200)
@given(st.data())
def test_every_flipped_bit_is_found(data):
    stored = bytearray(Encoder().encode(KEY, rock_salt(), full_label()))
    place = data.draw(st.integers(0, 8 * len(stored) - 1))
    stored[place // 8] ^= 1 << place % 8
    with pytest.raises(CorruptError):
        Decoder().decode(KEY, bytes(stored))


@given(st.integers(0, 200))
def test_a_record_that_is_cut_off_is_found(length):
    stored = Encoder().encode(KEY, rock_salt(), full_label())
    with pytest.raises(CorruptError):
        Decoder().decode(KEY, stored[: min(length, len(stored) - 1)])


def test_a_record_under_another_key_is_found():
    with pytest.raises(CorruptError, match="checksum"):
        Decoder().decode((8).to_bytes(8), Encoder().encode(KEY, rock_salt(), None))


def test_a_record_of_another_version_says_which_version():
    stored = bytearray(Encoder().encode(KEY, rock_salt(), None))
    stored[2] = FORMAT_VERSION + 1
    with pytest.raises(CorruptError, match=f"format version {FORMAT_VERSION + 1}"):
        Decoder().decode(KEY, bytes(stored))


def test_the_kept_record_of_version_1_still_reads():
    record = Decoder().decode(KEY, FIXTURE.read_bytes())
    assert record.structure.content_hash == rock_salt().content_hash
    assert bits(record.label.forces) == bits(full_label().forces)
    assert bits(record.label.hessian_rows) == bits(full_label().hessian_rows)
    assert record.label.properties == full_label().properties


def test_the_bytes_of_version_1_have_not_changed():
    # zstd may compress differently from release to release, so the comparison is of what is inside the frame.
    import zstandard

    from mlipdb.store.codec import DICTIONARY

    open_frame = zstandard.ZstdDecompressor(dict_data=DICTIONARY).decompress
    now = Encoder().encode(KEY, rock_salt(), full_label())
    assert open_frame(now[8:]) == open_frame(FIXTURE.read_bytes()[8:]), "a change of the format needs a new version"
