import json

import h5py

from mlipdb.export import export


def value(group, name):
    found = group[name][()]
    return None if isinstance(found, bytes) and found == b"None" else found


def test_every_number_is_where_the_loader_looks(db, tmp_path):
    [report] = export(db, "everything", format="mace-hdf5", path=tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as file:
        assert list(file) == ["config_batch_0"]  # every top-level key counts as a batch
        batch = file["config_batch_0"]
        assert len(batch) == report.written == 35
        for place, (structure, label) in enumerate(db.read(db.query("all").ids, method_id=1)):
            group = batch[f"config_{place}"]
            assert group["atomic_numbers"][()].tolist() == structure.atomic_numbers.tolist()
            assert group["positions"][()].tobytes() == structure.positions.tobytes()
            assert group["cell"][()].tobytes() == structure.cell.tobytes()
            assert tuple(group["pbc"][()]) == structure.pbc
            assert group["properties/energy"][()] == label.energy_uncorrected
            assert group["properties/forces"][()].tobytes() == label.forces.tobytes()
            if label.stress is None:
                assert value(group, "properties/stress") is None
            else:
                assert group["properties/stress"][()].tobytes() == label.stress.tobytes()
            assert group["property_weights/stress"][()] == float(label.stress is not None)
            assert (group["weight"][()], group["config_type"][()]) == (1.0, b"Default")
            assert group.attrs["external_id"] == db.entry(structure.id).external_id
        assert batch["config_33/properties/total_charge"][()] == -1.0
        assert batch["config_33/properties/total_spin"][()] == 1.0


def test_what_it_cannot_hold_is_said(db, tmp_path):
    [report] = export(db, "all", format="mace-hdf5", path=tmp_path / "two.h5", methods=["PBE/VASP", "nequix-mp-1"])
    lost = {lost.what: lost.structures for lost in report.lost}
    assert lost["labels of further methods"] == 18
    assert lost["magmoms"] == lost["properties"] == lost["energy_corrected"] == 5
    assert lost["band_gap"] == 35
    assert lost["tags and source rows"] == 4
    assert "energy_uncorrected" not in lost


def test_a_missing_energy_weighs_nothing(db, tmp_path):
    export(db, "all", format="mace-hdf5", path=tmp_path / "teacher.h5", methods=["nequix-mp-1"])
    with h5py.File(tmp_path / "teacher.h5") as file:
        group = file["config_batch_0/config_1"]
        assert value(group, "properties/energy") is None
        assert value(group, "properties/forces") is None
        assert group["property_weights/energy"][()] == group["property_weights/forces"][()] == 0.0
        assert file["config_batch_0/config_0/property_weights/energy"][()] == 1.0


def test_the_file_says_where_it_came_from_and_repeats_to_the_byte(db, tmp_path):
    for name in ("one.h5", "two.h5"):
        export(db, "everything", format="mace-hdf5", path=tmp_path / name)
    with h5py.File(tmp_path / "one.h5") as file:
        about = json.loads(file.attrs["mlipdb"])
    assert (about["database"], about["subset"]["name"]) == (db.uuid, "everything")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
