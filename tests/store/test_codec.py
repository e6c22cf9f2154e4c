"""The record codec gives back every bit, and notices every flipped one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlipdb.errors import CorruptError
from mlipdb.labels import Label
from mlipdb.store.batch import QUANTITIES, BatchDecoder
from mlipdb.store.codec import Encoder, payloads
from mlipdb.store.decode import Decoder
from mlipdb.store.dictionary import DICTIONARY
from mlipdb.store.layout import VERSION
from mlipdb.structures import Structure, make_structure
from mlipdb.units import convert

KEPT = Path(__file__).parent.parent / "data"
ID = 7


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


def decoded(structure, label):
    return Decoder().decode(ID, Encoder().encode(ID, structure, label))


any_float = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None)
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.just(3)), elements=any_float))
def test_any_float_comes_back_bit_for_bit_from_every_field(values):
    natoms = len(values)
    cell = np.resize(values, (3, 3))
    structure = Structure(np.full(natoms, 6, np.uint8), values, cell, (True, False, True))
    label = Label(
        energy_uncorrected=float(values[0, 0]),
        forces=values[::-1].copy(),
        stress=np.where(np.tri(3, dtype=bool), cell.T, cell),
        magmoms=values[:, 0].copy(),
        atomic_energies=values[:, 1].copy(),
        properties={"a": float(values[0, 1]), "b": float(values[0, 2])},
    )
    record = decoded(structure, label)
    for name in ("positions", "cell"):
        assert bits(getattr(record.structure, name)) == bits(getattr(structure, name)), name
    for name in ("forces", "stress", "magmoms", "atomic_energies"):
        assert bits(getattr(record.label, name)) == bits(getattr(label, name)), name
    assert bits(np.array(record.label.energy_uncorrected)) == bits(np.array(label.energy_uncorrected))
    assert bits(np.array(list(record.label.properties.values()))) == bits(np.array(list(label.properties.values())))


@pytest.mark.parametrize("unit", ["eV/Å³", "GPa", "kbar", "kbar(VASP)"])
@pytest.mark.parametrize("places", [4, 8])
def test_a_stress_that_was_decimal_in_the_source_takes_few_bytes(unit, places):
    rng = np.random.default_rng(places)
    stresses = np.round(rng.normal(0, 5, (50, 3, 3)), places)
    labels = [Label(stress=convert(stress, unit)) for stress in stresses]
    for label, data in zip(labels, payloads([(None, label) for label in labels]), strict=True):
        assert len(data) <= 15 + 9 * 5 + 16, "counts and perhaps distances, not nine float64 of 72 bytes"
        assert bits(decoded(None, label).label.stress) == bits(label.stress)


@pytest.mark.parametrize("factor", [27.211386245988 / 0.529177210903, 1.0])
def test_forces_that_were_float32_in_the_source_take_four_bytes_each(factor):
    forces = np.random.default_rng(3).normal(size=(20, 3)).astype(np.float32).astype(np.float64) * factor
    [data] = payloads([(None, Label(forces=forces))])
    assert len(data) == 10 + 5 + 4 * 60
    assert bits(decoded(None, Label(forces=forces)).label.forces) == bits(forces)


def test_positions_that_are_round_fractions_of_the_cell_take_four_bytes_each():
    rng = np.random.default_rng(4)
    cell = np.round(rng.normal(0, 1, (3, 3)) + 5 * np.eye(3), 8)
    fractions = np.round(rng.random((30, 3)), 8)
    positions = fractions[:, :1] * cell[0] + fractions[:, 1:2] * cell[1] + fractions[:, 2:] * cell[2]
    structure = make_structure([6] * 30, positions, cell=cell, pbc=(True, True, True))
    [data] = payloads([(structure, None)])
    assert len(data) == 10 + 6 + 4 * 9 + 4 * 90 + 30
    assert bits(decoded(structure, None).structure.positions) == bits(positions)


@given(st.lists(st.integers(-(10**9), 10**9), min_size=3, max_size=40), st.integers(-3, 3))
def test_decimals_and_their_neighbours_come_back_and_take_at_most_five_bytes(counts, ulps):
    values = np.array(counts[: len(counts) // 3 * 3]) / 1e8
    values.view(np.int64)[values != 0] += ulps
    label = Label(forces=values.reshape(-1, 3))
    assert bits(decoded(None, label).label.forces) == bits(values)
    assert len(payloads([(None, label)])[0]) <= 15 + 5 * len(values)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_records_of_any_mixture_read_the_same_one_by_one_and_together(seed, count):
    rng = np.random.default_rng(seed)
    pairs = [random_pair(rng) for _ in range(count)]
    ids = (rng.permutation(count) + rng.choice([1, 2**33])).tolist()
    records = [Encoder().encode(identity, *pair) for identity, pair in zip(ids, pairs, strict=True)]
    batch = BatchDecoder().decode(ids, records, QUANTITIES)
    for place, record in enumerate(BatchDecoder().records(ids, records)):
        alone = Decoder().decode(ids[place], records[place])
        assert record.structure.content_hash == alone.structure.content_hash == pairs[place][0].content_hash
        assert record.label.content_hash == alone.label.content_hash == pairs[place][1].content_hash
        assert record.structure.id == ids[place]
        assert record.label.atomic_energies_include_e0 is None
    for place, (structure, label) in enumerate(pairs):
        atoms = slice(batch.offsets[place], batch.offsets[place + 1])
        assert bits(batch.positions[atoms]) == bits(structure.positions)
        assert bits(batch.cells[place]) == bits(structure.cell)
        assert batch.atomic_numbers[atoms].tolist() == structure.atomic_numbers.tolist()
        assert tuple(batch.pbc[place].tolist()) == structure.pbc
        for name in QUANTITIES:
            wanted = getattr(structure if name in ("charge", "spin_multiplicity") else label, name)
            assert batch.present[name][place] == (wanted is not None)
            found = batch.values[name][atoms if name in ("forces", "magmoms", "atomic_energies") else place]
            assert np.isnan(found).all() if wanted is None else bits(found) == bits(wanted)


def random_pair(rng):
    """A structure and a label of whatever fields, of decimals, float32 or any numbers."""

    def numbers(*shape):
        values = rng.normal(0, 10, shape)
        kind = rng.integers(4)
        return [values, np.round(values, 8), values.astype(np.float32).astype(float), np.round(values, 8) * 51.4][kind]

    natoms = int(rng.integers(1, 6))
    cell, chosen = np.round(numbers(3, 3), 8), rng.random(9) < 0.5
    positions = numbers(natoms, 3) if rng.random() < 0.5 else np.round(rng.random((natoms, 3)), 8) @ cell
    structure = Structure(
        rng.integers(1, 90, natoms).astype(np.uint8), positions, cell, (True, bool(chosen[0]), False),
        charge=1.0 if chosen[1] else None, spin_multiplicity=3 if chosen[2] else None,
    )  # fmt: skip
    label = Label(
        energy_uncorrected=float(numbers(1)[0]),
        band_gap=float(numbers(1)[0]) if chosen[3] else None,
        forces=numbers(natoms, 3) if chosen[4] else None,
        stress=numbers(3, 3) if chosen[5] else None,
        magmoms=numbers(natoms) if chosen[6] else None,
        atomic_energies=numbers(natoms) if chosen[7] else None,
        hessian_rows=numbers(2, natoms, 3) if chosen[8] else None,
        hessian_row_numbers=np.array([0, 2], np.int32) if chosen[8] else None,
        properties={"x": float(numbers(1)[0])} if rng.random() < 0.5 else {},
    )
    return structure, label


def test_a_full_record_comes_back_with_every_field():
    record = Decoder().decode(ID, Encoder().encode(ID, rock_salt(), full_label()))
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
    record = Decoder().decode(ID, Encoder().encode(ID, None, full_label()))
    assert record.structure is None
    assert record.label.hessian_rows.shape == (2, 2, 3)


def test_an_absent_quantity_stays_absent_and_is_never_zero():
    label = Decoder().decode(ID, Encoder().encode(ID, rock_salt(), Label(energy_uncorrected=-1.0))).label
    assert (label.forces, label.stress, label.band_gap, label.atomic_energies_include_e0) == (None,) * 4


@settings(max_examples=200)
@given(st.data())
def test_every_flipped_bit_is_found(data):
    stored = bytearray(Encoder().encode(ID, rock_salt(), full_label()))
    place = data.draw(st.integers(0, 8 * len(stored) - 1))
    stored[place // 8] ^= 1 << place % 8
    with pytest.raises(CorruptError):
        Decoder().decode(ID, bytes(stored))


@given(st.integers(0, 200))
def test_a_record_that_is_cut_off_is_found(length):
    stored = Encoder().encode(ID, rock_salt(), full_label())
    with pytest.raises(CorruptError):
        Decoder().decode(ID, stored[: min(length, len(stored) - 1)])


def test_a_record_under_another_key_is_found():
    with pytest.raises(CorruptError, match="checksum"):
        Decoder().decode(8, Encoder().encode(ID, rock_salt(), None))


def test_a_record_of_another_version_says_which_version():
    stored = bytearray(Encoder().encode(ID, rock_salt(), None))
    stored[2] = VERSION + 1
    with pytest.raises(CorruptError, match=f"format version {VERSION + 1}"):
        Decoder().decode(ID, bytes(stored))


@pytest.mark.parametrize("kept", ["record_v1.bin", "record_v2.bin"])
def test_the_kept_record_of_each_version_still_reads_in_both_ways(kept):
    data = (KEPT / kept).read_bytes()
    record = Decoder().decode(ID, data)
    batch = BatchDecoder().decode([ID, ID], [data, Encoder().encode(ID, rock_salt(), full_label())], QUANTITIES)
    assert record.structure.content_hash == rock_salt().content_hash
    assert record.label.content_hash == full_label().content_hash
    assert bits(record.label.hessian_rows) == bits(full_label().hessian_rows)
    assert record.label.properties == full_label().properties
    for name in ("forces", "stress", "magmoms", "atomic_energies", "energy_corrected"):
        first, second = np.split(batch.values[name], 2)
        assert bits(first) == bits(second) == bits(getattr(full_label(), name)), name
    assert batch.atomic_numbers.tolist() == [11, 17, 11, 17]


def test_the_bytes_of_version_2_have_not_changed():
    # zstd may compress differently from release to release, so the comparison is of what is inside the frame.
    import zstandard

    frame = (KEPT / "record_v2.bin").read_bytes()[4:-4]
    [now] = payloads([(rock_salt(), full_label())])
    old = zstandard.ZstdDecompressor(dict_data=DICTIONARY).decompress(frame)
    assert now == old, "a change of the format needs a new version"


def test_labels_without_structures_come_back_alone_among_others():
    pairs = [
        (None, full_label()),
        (rock_salt(), None),
        (None, Label(energy_uncorrected=-1.0)),
        (rock_salt(), full_label()),
    ]
    data = [Encoder().encode(identity, *pair) for identity, pair in enumerate(pairs)]
    found = BatchDecoder().records(range(4), data)
    assert [record.structure is None for record in found] == [True, False, True, False]
    assert found[1].label is None
    assert [record.label.content_hash for record in found if record.label] == [
        label.content_hash for _, label in pairs if label is not None
    ]


def test_damage_is_found_when_records_are_read_together_too():
    records = [bytearray(Encoder().encode(identity, rock_salt(), full_label())) for identity in (1, 2)]
    records[1][40] ^= 1
    with pytest.raises(CorruptError, match="record 2 fails"):
        BatchDecoder().decode([1, 2], [bytes(record) for record in records], ["forces"])


@pytest.mark.parametrize("ids", [[1], [1, 2, 3]])
def test_records_are_not_read_together_under_fewer_or_more_ids(ids):
    records = [Encoder().encode(identity, rock_salt(), full_label()) for identity in (1, 2)]
    with pytest.raises(ValueError, match="zip"):
        BatchDecoder().decode(ids, records, ["forces"])
