import ase.db
import numpy as np
import pytest

from mlipdb.errors import IngestError
from mlipdb.export import export
from mlipdb.ingest.readers.asedb import AsedbReader
from mlipdb.ingest.readers.aselmdb import AselmdbReader
from mlipdb.labels import Method
from mlipdb.records import NewStructure
from mlipdb.testing.samples import rock_salt

CONTAINERS = {"aselmdb": ("all.aselmdb", AselmdbReader), "asedb": ("all.db", AsedbReader)}


@pytest.fixture(params=CONTAINERS)
def container(request):
    return request.param


def written(db, container, folder, selection="all", **settings):
    name, reader = CONTAINERS[container]
    [report] = export(db, selection, format=container, path=folder / name, **settings)
    return folder / name, report, reader()


def test_our_own_reader_gives_back_every_bit(db, tmp_path, container, same_structure, same_label):
    path, report, reader = written(db, container, tmp_path)
    assert (report.written, report.lost, report.skipped) == (35, (), ())
    frames = list(reader.frames(path, {}))
    for frame, (structure, label) in zip(frames, db.read(db.query("all").ids, method_id=1), strict=True):
        entry = db.entry(structure.id)
        assert (frame.external_id, frame.material) == (entry.external_id, entry.material)
        same_structure(structure, frame.structure)
        same_label(label, frame.label)


def test_ase_opens_it_and_has_the_same_numbers(db, tmp_path, container):
    path, _, _ = written(db, container, tmp_path)
    rows = list(ase.db.connect(path, **({"readonly": True} if container == "aselmdb" else {})).select())
    for row, (structure, label) in zip(rows, db.read(db.query("all").ids, method_id=1), strict=True):
        atoms = row.toatoms()
        assert atoms.positions.tobytes() == structure.positions.tobytes()
        assert atoms.cell.array.tobytes() == structure.cell.tobytes()
        assert tuple(atoms.pbc) == structure.pbc
        assert atoms.get_potential_energy() == label.energy_uncorrected
        assert atoms.calc.results["free_energy"] == label.free_energy if label.free_energy else True
        assert atoms.get_forces().tobytes() == label.forces.tobytes()
        if label.stress is not None:
            np.testing.assert_array_equal(atoms.get_stress(voigt=False), label.stress)
    assert (rows[33].data["charge"], rows[33].data["spin"]) == (-1.0, 1)
    assert rows[33].data["mlipdb"] == {"tags": {"subset": 'It\'s "quoted"', "level": "3"}, "row": 3}


def test_the_metadata_say_where_it_came_from(db, tmp_path, container):
    path, report, _ = written(db, container, tmp_path, "everything")
    about = ase.db.connect(path).metadata
    assert about["database"] == db.uuid
    assert (about["subset"]["name"], len(about["subset"]["hash"])) == ("everything", 64)
    assert [row["licence"] for row in about["sources"]] == ["CC-BY-4.0", "CC0"]
    assert about["methods"][0]["energy"] == "energy_uncorrected"
    assert report.beside == (("all.aselmdb.metadata.npz",) if container == "aselmdb" else ())


def test_exporting_again_gives_the_same_bytes(db, tmp_path, container):
    first, _, _ = written(db, container, tmp_path / "one")
    second, _, _ = written(db, container, tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()


def test_another_energy_is_found_and_our_reader_asks_which_is_meant(db, tmp_path, container, same_label):
    path, _, reader = written(db, container, tmp_path, '_mlipdb_source="awkward"', energy="corrected")
    label = db.labels(31)[0]
    assert ase.db.connect(path).get(1).energy == label.energy_corrected
    with pytest.raises(IngestError, match="could hold the energy and they differ"):
        next(reader.frames(path, {}))
    keys = {"energy": "uncorrected_total_energy", "energy_corrected": "column.energy"}
    same_label(label, next(reader.frames(path, {"keys": keys})).label)


def test_a_further_method_is_in_the_data(db, tmp_path, container):
    path, _, _ = written(db, container, tmp_path, methods=["PBE/VASP", "nequix-mp-1"])
    teacher = db.labels(1)[1]
    data = ase.db.connect(path).get(1).data
    assert data["nequix_mp_1_energy"] == teacher.energy_uncorrected
    assert np.asarray(data["nequix_mp_1_forces"]).tobytes() == teacher.forces.tobytes()
    assert "nequix_mp_1_energy" not in ase.db.connect(path).get(2).data


def test_hessian_rows_and_the_antisymmetric_part_of_a_stress_are_said_to_be_lost(
    db, tmp_path, container, same_label, make_label
):
    stress = np.arange(9.0).reshape(3, 3) / 100
    stress[0, 1] = stress[1, 0] + 1e-7
    stress[2, 1], stress[2, 0] = stress[1, 2], stress[0, 2]
    label = make_label(rock_salt(), seed=5, hessian=True, stress=stress)
    source = db.open_source("more", reader="none", uri="nowhere")
    record = NewStructure(structure=rock_salt(), label=label, external_id="x", material="m")
    db.append([record], source_id=source, method_id=db.method_id(Method(kind="dft", name="other")))
    path, report, reader = written(db, container, tmp_path, '_mlipdb_source="more"')
    assert [(lost.what, lost.structures) for lost in report.lost] == [("hessian_rows", 1), ("stress", 1)]
    frame = next(reader.frames(path, {"keys": {"stress": "stress_tensor"}}))
    same_label(label, frame.label, but=("hessian_rows", "hessian_row_numbers"))


def test_a_folder_is_what_fairchem_takes(db, tmp_path):
    reports = export(db, "everything", format="aselmdb", path=tmp_path / "set", split=True)
    for report in reports:
        folder = tmp_path / "set" / report.part
        assert sorted(item.name for item in folder.iterdir()) == ["data.aselmdb", "metadata.npz"]
        rows = ase.db.connect(folder / "data.aselmdb", readonly=True)
        natoms = np.load(folder / "metadata.npz")["natoms"]
        assert natoms.tolist() == [row.natoms for row in rows.select()]
        assert {row.data["split"] for row in rows.select()} == {report.part}


def test_the_map_grows_with_the_rows(db, tmp_path, monkeypatch):
    monkeypatch.setattr("mlipdb.export.aselmdb.FIRST_SIZE", 1 << 16)
    monkeypatch.setattr("mlipdb.export.aselmdb.BATCH", 5)
    path, report, reader = written(db, "aselmdb", tmp_path)
    assert len(list(reader.frames(path, {}))) == report.written == 35


def test_ase_searches_by_source_and_material(db, tmp_path):
    path, _, _ = written(db, "asedb", tmp_path)
    assert ase.db.connect(path).count(source="awkward") == 5
    assert ase.db.connect(path).count(material="material-3") == 3
