import contextlib
import random

import ase
import ase.constraints
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase_db_backends.aselmdb import LMDBDatabase

from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.aselmdb import AselmdbReader, _meaning
from mlipdb.labels import Label
from mlipdb.testing.readers import ReaderConformance
from mlipdb.testing.two_atoms import CELL, FORCES, PLACES, TENSOR, VOIGT, box


def crystal(step=0, **results):
    atoms = ase.Atoms(numbers=[1, 8], positions=np.array(PLACES) + 0.125 * step, cell=CELL, pbc=True)
    default = {"energy": -1.5 - step, "forces": np.array(FORCES), "stress": VOIGT}
    results = {name: value for name, value in {**default, **results}.items() if value is not None}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def write(path, *rows, metadata=None):
    """Rows of (atoms, data, key_value_pairs), written by the package that wrote OMat24."""
    database = LMDBDatabase(path, use_lock_file=False)
    for atoms, data, pairs in rows:
        database.write(atoms, data=data, **pairs)
    if metadata:
        database.metadata = metadata
    database.close()
    return path


def read(path, **options):
    return list(AselmdbReader().frames(path, options))


def one(folder, data, *, atoms=None, metadata=None, pairs=None, **options):
    (found,) = read(
        write(folder / "one.aselmdb", (atoms or crystal(), data, pairs or {}), metadata=metadata), **options
    )
    return found


class TestAselmdb(ReaderConformance):
    reader = AselmdbReader()
    text = False

    def sample(self, folder):
        extra = {"magmoms": np.array([0.25, 0.5]), "free_energy": -1.75}
        data = [
            {"sid": f"agm0001234-{step}", "bandgap": 0.5, "split": "val", "n": 3, "words": "x"} for step in range(3)
        ]
        rows = [(crystal(step, **extra), data[step], {"scale": 0.5}) for step in range(3)]
        return write(folder / "sample.aselmdb", *rows)

    def first_frame(self):
        label = Label(
            energy_uncorrected=-1.5,
            free_energy=-1.75,
            band_gap=0.5,
            forces=np.array(FORCES),
            stress=TENSOR,
            magmoms=np.array([0.25, 0.5]),
            properties={"scale": 0.5, "n": 3.0},
        )
        return Frame(
            structure=box(),
            label=label,
            external_id="agm0001234-0",
            material="agm0001234",
            location="row 1",
            tags={"split": "val"},
        )


def test_charge_and_spin_of_a_molecule_are_kept_wherever_the_row_has_them(tmp_path):
    molecule = crystal(stress=None)
    molecule.pbc, molecule.cell = False, None
    omol = {"charge": -1, "spin": 2, "data_id": "elytes", "source": "a/b", "mulliken_charges": np.array([0.5, -1.5])}
    for data in (omol, {"info": omol}):
        frame = one(tmp_path, data, atoms=molecule)
        assert (frame.structure.charge, frame.structure.spin_multiplicity) == (-1.0, 2)
        assert frame.structure.pbc == (False, False, False)
        assert frame.tags == {"data_id": "elytes"}
        (tmp_path / "one.aselmdb").unlink()
    assert one(tmp_path, None, atoms=molecule, pairs={"charge": 2, "spin": 3}).structure.charge == 2.0


def test_a_spin_of_zero_means_that_the_file_does_not_say_one(tmp_path):
    structure = one(tmp_path, {"charge": 0, "spin": 0}).structure
    assert (structure.charge, structure.spin_multiplicity) == (0.0, None)


def test_deleted_rows_are_left_out_and_the_others_keep_their_numbers(tmp_path):
    path = write(tmp_path / "d.aselmdb", *[(crystal(step), None, {}) for step in range(12)])
    database = LMDBDatabase(path, use_lock_file=False)
    database.delete([2, 5, 12])
    database.close()
    frames = read(path)
    assert [frame.location for frame in frames] == [f"row {number}" for number in (1, 3, 4, 6, 7, 8, 9, 10, 11)]
    assert [frame.label.energy_uncorrected for frame in frames][:2] == [-1.5, -3.5]


def test_a_row_that_is_gone_though_it_was_not_deleted_is_in_quarantine(tmp_path):
    path = write(tmp_path / "m.aselmdb", *[(crystal(step), None, {}) for step in range(3)])
    database = LMDBDatabase(path, use_lock_file=False)
    with database.env.begin(write=True) as transaction:
        transaction.delete(b"2")
        transaction.put(b"3", b"not zlib")
    database.close()
    first, missing, damaged = read(path)
    assert isinstance(first, Frame)
    assert (missing.key, "missing" in missing.reason) == ("2", True)
    assert "damaged" in damaged.reason


def test_constraints_are_a_tag_and_forces_stay_those_of_the_calculator(tmp_path):
    atoms = crystal()
    atoms.set_constraint(ase.constraints.FixAtoms([0]))
    frame = one(tmp_path, None, atoms=atoms)
    assert frame.tags == {"constraint": "FixAtoms"}
    assert frame.label.properties["fixed_atoms"] == 1.0
    assert frame.label.forces.tolist() == FORCES


def test_ids_fall_back_to_ase_and_materials_to_the_row_itself(tmp_path):
    frame = one(tmp_path, None, source="mine")
    assert len(frame.external_id) == 32  # ASE's unique_id
    assert frame.material == f"mine/{frame.external_id}"


def test_units_of_the_metadata_are_honoured_or_refused_with_the_option_that_helps(tmp_path):
    path = tmp_path / "one.aselmdb"
    frame = one(tmp_path, None, metadata={"units": {"energy": "hartree", "forces": "eV/Ang"}})
    assert frame.label.energy_uncorrected == -1.5 * 27.211386245988
    assert frame.label.forces.tolist() == FORCES
    path.unlink()
    with pytest.raises(IngestError, match=r"energy is in 'parsec'.*--unit energy="):
        one(tmp_path, None, metadata={"units": {"energy": "parsec"}})
    assert read(path, units={"energy": "kcal/mol"})[0].label.energy_uncorrected == pytest.approx(-0.0650461, abs=1e-6)
    path.unlink()
    assert one(tmp_path, None, metadata={"units": "eV, eV/A, eV/A^3 (ASE sign)"}).label.energy_uncorrected == -1.5
    path.unlink()
    with pytest.raises(IngestError, match="'furlong' is not understood"):
        one(tmp_path, None, metadata={"units": "eV, furlong"})


def test_a_label_in_data_needs_a_unit_and_says_which_option_gives_it(tmp_path):
    bare = crystal(energy=None, forces=None, stress=None)
    with pytest.raises(IngestError, match=r"keeps 'energy' in its data.*--unit energy=eV"):
        one(tmp_path, {"energy": -1.0}, atoms=bare)
    path = tmp_path / "one.aselmdb"
    assert read(path, units={"energy": "hartree"})[0].label.energy_uncorrected == -27.211386245988


def test_two_places_that_differ_stop_with_both_values_and_the_options(tmp_path):
    with pytest.raises(IngestError) as caught:
        one(tmp_path, {"energy": -2.5})
    for part in (
        "column.energy is [-1.5]",
        "energy is [-2.5]",
        "--key energy=column.energy",
        "--key energy=data.energy",
    ):
        assert part in str(caught.value)
    path = tmp_path / "one.aselmdb"
    assert read(path, keys={"energy": "column.energy"})[0].label.energy_uncorrected == -1.5
    keys, units = {"energy": "data.energy"}, {"energy": "eV"}
    assert read(path, keys=keys, units=units)[0].label.energy_uncorrected == -2.5


def test_unknown_quantities_and_units_of_the_user_are_errors_with_a_suggestion(tmp_path):
    path = write(tmp_path / "u.aselmdb", (crystal(), None, {}))
    with pytest.raises(ConfigError, match="Did you mean 'energy'"):
        read(path, keys={"enrgy": "x"})
    with pytest.raises(ConfigError, match="no unit of energy"):
        read(path, units={"energy": "GPa"})


def test_a_minus_before_a_declared_unit_turns_the_sign(tmp_path):
    path = write(tmp_path / "s.aselmdb", (crystal(), None, {}))
    assert read(path, units={"stress": "-eV/A^3"})[0].label.stress[0, 0] == -1.0


def test_a_file_with_random_damage_gives_an_error_or_rejected_rows_and_never_other_numbers(tmp_path):
    path = write(tmp_path / "f.aselmdb", *[(crystal(step), None, {}) for step in range(40)])
    whole = {frame.location: frame.structure.content_hash for frame in read(path)}
    raw = path.read_bytes()
    for seed in range(60):
        chance = random.Random(seed)
        data = bytearray(raw)
        for _ in range(4):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        items = AselmdbReader().frames(path, {})
        with contextlib.suppress(IngestError):
            for item in items:
                assert isinstance(item, Rejected) or whole[item.location] == item.structure.content_hash


def test_rows_can_be_parsed_elsewhere_under_the_same_keys_and_units(tmp_path):
    path = write(tmp_path / "p.aselmdb", *[(crystal(step), {"e": -2.0}, {}) for step in range(3)])
    options = {"keys": {"energy": "e"}, "units": {"energy": "hartree"}, "source": "mine", "file": "a/p.aselmdb"}
    records = list(AselmdbReader().raw_records(path, options))
    _meaning.cache_clear()  # another process knows nothing but the record
    for record, frame in zip(records, read(path, **options), strict=True):
        parsed = AselmdbReader().parse(record, path)
        assert parsed.label.energy_uncorrected == -2.0 * 27.211386245988
        assert parsed.label.content_hash == frame.label.content_hash
        assert (parsed.external_id, parsed.material) == (frame.external_id, frame.material)


def test_values_larger_than_a_page_are_read_whole(tmp_path):
    places = np.random.default_rng(1).normal(size=(2000, 3))
    path = write(tmp_path / "l.aselmdb", (ase.Atoms(numbers=[14] * 2000, positions=places), None, {}))
    assert np.array_equal(read(path)[0].structure.positions, places)


def test_another_lmdb_file_is_not_claimed_and_says_what_it_lacks(tmp_path):
    path = tmp_path / "other.lmdb"
    database = LMDBDatabase(path, use_lock_file=False)
    with database.env.begin(write=True) as transaction:
        transaction.put(b"key", b"value")
    database.close()
    assert AselmdbReader().claims(path, path.read_bytes()[:4096]) is None
    with pytest.raises(IngestError, match="nextid is None"):
        read(path)


def test_the_file_of_real_labels_reads_as_the_package_reads_it(shared_data):
    path = shared_data / "derived-containers" / "mixed_800.aselmdb"
    frames = read(path)
    database = LMDBDatabase(path, readonly=True, use_lock_file=False)
    assert len(frames) == len(database) == 800
    for frame, row in zip(frames, database.select(), strict=True):
        assert np.array_equal(frame.structure.positions, row.positions)
        assert frame.label.energy_uncorrected == row.energy
        assert np.array_equal(frame.label.forces, row.forces)
        assert frame.label.stress[1, 2] == row.stress[3]
    assert len({frame.material for frame in frames}) == 799  # one material twice
    assert frames[0].external_id == "mp-1080834-0-1"
