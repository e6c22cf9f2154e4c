import sqlite3

import ase
import ase.db
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from mlipdb.errors import IngestError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.asedb import AsedbReader
from mlipdb.labels import Label
from mlipdb.testing.readers import ReaderConformance
from mlipdb.testing.two_atoms import CELL, FORCES, PLACES, TENSOR, VOIGT, box


def crystal(step=0, **results):
    atoms = ase.Atoms(numbers=[1, 8], positions=np.array(PLACES) + 0.125 * step, cell=CELL, pbc=(True, True, True))
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def write(path, *rows, metadata=None):
    with ase.db.connect(path) as database:
        for atoms, data, pairs in rows:
            database.write(atoms, data=data, **pairs)
        if metadata:
            database.metadata = metadata
    return path


def read(path, **options):
    return list(AsedbReader().frames(path, options))


class TestAsedb(ReaderConformance):
    reader = AsedbReader()
    text = False

    def sample(self, folder):
        path = folder / "sample.db"
        path.unlink(missing_ok=True)
        results = {
            "energy": -1.5,
            "free_energy": -1.75,
            "forces": np.array(FORCES),
            "stress": VOIGT,
            "magmoms": np.array([0.25, 0.5]),
        }
        data = {"bandgap": 0.5, "corrected_total_energy": -1.25, "energy_per_atom": -0.625, "D3": {"energy": -9.0}}
        names = {"mp_id": "mp-3", "task_id": "mp-7", "calc_id": 0}
        rows = [(crystal(n, **results), {**data, **names, "ionic_step": n}, {"split": "val"}) for n in range(3)]
        return write(path, *rows)

    def first_frame(self):
        label = Label(
            energy_uncorrected=-1.5,
            free_energy=-1.75,
            energy_corrected=-1.25,
            band_gap=0.5,
            forces=np.array(FORCES),
            stress=TENSOR,
            magmoms=np.array([0.25, 0.5]),
            properties={"energy_per_atom": -0.625},
        )
        return Frame(
            structure=box(),
            label=label,
            external_id="mp-7-0-0",
            material="mp-3",
            location="row 1",
            tags={"split": "val"},
        )


def test_labels_in_data_use_the_units_that_schnetpack_puts_into_the_metadata(tmp_path):
    data = {"energy": np.array([-1.0]), "forces": np.array(FORCES), "dipole_moment": np.array([1.5])}
    units = {"energy": "kcal/mol", "forces": "kcal/mol/Ang", "dipole_moment": "Debye"}
    metadata = {"_property_unit_dict": units, "_distance_unit": "Bohr"}
    (frame,) = read(write(tmp_path / "s.db", (crystal(), data, {}), metadata=metadata))
    kcal = 4184 / 96485.33212331001
    assert frame.label.energy_uncorrected == pytest.approx(-kcal, rel=1e-14)
    np.testing.assert_allclose(frame.label.forces, np.array(FORCES) * kcal, rtol=1e-14)
    assert frame.structure.cell[0, 0] == 4.0 * 0.529177210903
    assert frame.label.properties == {"dipole_moment": 1.5}


def test_a_declared_key_takes_the_unit_that_the_metadata_give_its_name(tmp_path):
    metadata = {"_property_unit_dict": {"energy_U0": "Ha"}, "_distance_unit": "Ang"}
    path = write(tmp_path / "q.db", (crystal(), {"energy_U0": np.array([-2.0])}, {}), metadata=metadata)
    assert read(path)[0].label.energy_uncorrected is None
    assert read(path, keys={"energy": "energy_U0"})[0].label.energy_uncorrected == -2.0 * 27.211386245988


def test_a_label_in_data_without_a_stated_unit_stops_with_the_option(tmp_path):
    path = write(tmp_path / "n.db", (crystal(), {"forces": np.array(FORCES)}, {}))
    with pytest.raises(IngestError, match=r"keeps 'forces' in its data.*--unit forces=eV/Å"):
        read(path)
    assert read(path, units={"forces": "hartree/bohr"})[0].label.forces[0, 0] == pytest.approx(
        0.1 * 51.422067, rel=1e-7
    )


def test_charge_is_taken_from_names_or_initial_charges_but_not_from_ases_default_of_zero(tmp_path):
    charged = crystal()
    charged.set_initial_charges([0.5, -1.5])
    path = write(tmp_path / "c.db", (crystal(), None, {}), (charged, None, {}), (crystal(), {"charge": 2}, {"spin": 3}))
    plain, initial, named = (frame.structure for frame in read(path))
    assert (plain.charge, initial.charge) == (None, -1.0)
    assert (named.charge, named.spin_multiplicity) == (2.0, 3)


def test_a_structure_without_any_label_has_none(tmp_path):
    (frame,) = read(write(tmp_path / "u.db", (ase.Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]]), None, {})))
    assert frame.label is None
    assert frame.structure.pbc == (False, False, False)


def test_tags_can_be_chosen(tmp_path):
    path = write(tmp_path / "t.db", (crystal(), {"family": "oxide", "split": "val"}, {}))
    assert read(path, keys={"tags": "family,phase"})[0].tags == {"family": "oxide"}


def test_what_an_export_of_ours_keeps_beside_ases_names_comes_back(tmp_path):
    data = {"mlipdb": {"tags": {"family": "oxide"}, "row": 7, "atomic_energies_include_e0": False}}
    data["atomic_energies"] = np.array([1.0, 2.0])
    path = write(tmp_path / "own.db", (crystal(energy=-1.0), data, {}))
    (frame,) = read(path)
    assert (frame.tags, frame.row) == ({"family": "oxide"}, 7)
    assert frame.label.atomic_energies_include_e0 is False


def test_a_row_whose_blobs_do_not_fit_is_rejected_and_the_next_is_read(tmp_path):
    path = write(tmp_path / "b.db", *[(crystal(n, energy=-1.0), None, {}) for n in range(3)])
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE systems SET positions = x'0011223344' WHERE id = 2")
        connection.execute("UPDATE systems SET data = x'ff' WHERE id = 3")
    connection.close()
    good, positions, data = read(path)
    assert isinstance(good, Frame)
    assert isinstance(positions, Rejected)
    assert "layout" in positions.reason
    assert isinstance(data, Rejected)


def test_another_sqlite_file_is_not_claimed_and_stops_with_its_name(tmp_path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE things (id INTEGER)")
    connection.close()
    assert AsedbReader().claims(path, path.read_bytes()) is None
    with pytest.raises(IngestError, match=r"other\.db: SQLite cannot read on after row 0"):
        read(path)


def test_old_tables_are_refused_with_the_way_to_renew_them(tmp_path):
    path = write(tmp_path / "old.db", (crystal(), None, {}))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE information SET value = '4' WHERE name = 'version'")
    connection.close()
    with pytest.raises(IngestError, match=r"version 4; from 5 on.*--insert-into"):
        read(path)


def test_genuine_mptrj_records_keep_their_fields(shared_data):
    frames = read(shared_data / "orb-fixtures" / "10_thin_mp_traj_systems.db")
    assert len(frames) == 11
    first = frames[0]
    assert first.material == "mp-1205402"
    assert first.external_id.count("-") >= 3
    assert first.label.energy_uncorrected == -208.0919485
    assert first.label.band_gap == 0.0
    assert first.label.energy_corrected / len(first.structure) == pytest.approx(
        first.label.properties["energy_per_atom"]
    )
    for frame, row in zip(
        frames, ase.db.connect(shared_data / "orb-fixtures" / "10_thin_mp_traj_systems.db").select(), strict=True
    ):
        assert np.array_equal(frame.structure.positions, row.positions)
        assert np.array_equal(frame.label.forces, row.forces)
        assert frame.label.stress[0, 1] == row.stress[5]


def test_a_real_database_without_names_reads_as_ase_reads_it(shared_data):
    path = shared_data / "fairchem" / "oxides.db"
    frames = read(path)
    assert len(frames) == 295
    for frame, row in zip(frames, ase.db.connect(path).select(), strict=True):
        assert frame.external_id == row.unique_id
        assert frame.label.energy_uncorrected == row.energy
        assert np.array_equal(frame.label.forces, row.forces)
        assert frame.label.stress is None


@pytest.mark.parametrize(("name", "value"), [("version", "n"), ("version", b"\xff\xfe"), ("metadata", "{cut")])
def test_a_damaged_version_or_metadata_stops_with_the_file_and_what_to_do(tmp_path, name, value):
    path = write(tmp_path / "damaged.db", (crystal(), None, {}))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT OR REPLACE INTO information VALUES (?, ?)", (name, value))
        connection.execute("DELETE FROM information WHERE name = ? AND value != ?", (name, value))
    connection.close()
    with pytest.raises(IngestError, match=r"damaged\.db: its table information, .* is damaged \(.*recover"):
        read(path)
