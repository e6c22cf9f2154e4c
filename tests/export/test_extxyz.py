import gzip
import json

import ase.io
import numpy as np
import pytest

from mlipdb.errors import IngestError
from mlipdb.export import export
from mlipdb.ingest.readers.extxyz import ExtxyzReader


def read_back(path, **keys):
    return list(ExtxyzReader().frames(path, {"keys": keys}))


def test_our_own_reader_gives_back_every_bit(db, tmp_path, same_structure, same_label):
    [report] = export(db, "all", format="extxyz", path=tmp_path / "all.extxyz")
    assert (report.written, report.skipped, report.energy) == (35, (), "energy_uncorrected")
    assert report.lost == ()
    frames = read_back(tmp_path / "all.extxyz")
    for frame, (structure, label) in zip(frames, db.read(db.query("all").ids, method_id=1), strict=True):
        same_structure(structure, frame.structure)
        same_label(label, frame.label)
        entry = db.entry(structure.id)
        assert (frame.external_id, frame.material) == (entry.external_id, entry.material)


def test_ase_reads_the_same_numbers(db, tmp_path):
    export(db, "all", format="extxyz", path=tmp_path / "all.xyz")
    images = ase.io.read(tmp_path / "all.xyz", ":")
    for atoms, (structure, label) in zip(images, db.read(db.query("all").ids, method_id=1), strict=True):
        assert atoms.positions.tobytes() == structure.positions.tobytes()
        assert atoms.cell.array.tobytes() == structure.cell.tobytes()
        assert tuple(atoms.pbc) == structure.pbc
        assert atoms.get_potential_energy() == label.energy_uncorrected
        assert atoms.get_forces().tobytes() == label.forces.tobytes()
        if label.stress is not None:
            np.testing.assert_array_equal(atoms.get_stress(voigt=False), label.stress)
    ion = images[33]
    assert (ion.info["charge"], ion.info["spin_multiplicity"]) == (-1.0, 1)
    assert ion.info["mlipdb"] == {"tags": {"subset": 'It\'s "quoted"', "level": "3"}, "row": 3}


def test_a_second_method_has_names_of_its_own(db, tmp_path, same_label):
    path = tmp_path / "two.extxyz"
    [report] = export(db, "all", format="extxyz", path=path, methods=["PBE/VASP", "nequix-mp-1"])
    assert report.methods == ("PBE/VASP", "nequix-mp-1")
    frames = read_back(path, energy="nequix_mp_1_energy", forces="nequix_mp_1_forces", stress="nequix_mp_1_stress")
    teacher = [label for _, label in db.read(db.query("all").ids, method_id=2)]
    assert sum(label is not None for label in teacher) == 18
    for frame, label in zip(frames, teacher, strict=True):
        if label is None:
            assert frame.label.forces is None
        else:
            same_label(label, frame.label, but=("properties", "band_gap", "magmoms", *KINDS))
            assert frame.label.energy_uncorrected == label.energy_uncorrected


KINDS = ("energy_corrected", "free_energy", "energy_zero")


def test_the_corrected_energy_stands_under_the_name_energy_when_asked_for(db, tmp_path, same_label):
    path = tmp_path / "corrected.extxyz"
    [report] = export(db, '_mlipdb_source="awkward"', format="extxyz", path=path, energy="corrected")
    assert report.energy == "energy_corrected"
    label = db.labels(31)[0]
    assert ase.io.read(path).get_potential_energy() == db.labels(35)[0].energy_corrected
    with pytest.raises(IngestError, match="could be the energy and they differ"):
        read_back(path)
    frames = read_back(path, energy="uncorrected_total_energy", energy_corrected="energy")
    same_label(label, frames[0].label)


def test_the_file_beside_it_says_where_it_came_from(db, tmp_path):
    [report] = export(db, "everything", format="extxyz", path=tmp_path / "all.extxyz")
    about = json.loads((tmp_path / "all.extxyz.about.json").read_text())
    assert report.beside == ("all.extxyz.about.json",)
    assert about["database"] == db.uuid
    assert (about["subset"]["name"], about["structures"]) == ("everything", 35)
    assert len(about["subset"]["hash"]) == 64
    assert [(row["name"], row["licence"], row["structures"]) for row in about["sources"]] == [
        ("awkward", "CC-BY-4.0", 5),
        ("plain", "CC0", 30),
    ]
    assert about["sources"][1]["citation"] == "Doe (2024)"
    assert about["methods"][0]["energy"] == "energy_uncorrected"
    assert about["methods"][0]["method"]["functional"] == "PBE"


def test_a_packed_file_holds_the_same_text_and_repeats_to_the_byte(db, tmp_path):
    for name in ("plain.xyz", "one.xyz.gz", "two.xyz.gz"):
        export(db, "everything", format="extxyz", path=tmp_path / name)
    assert gzip.decompress((tmp_path / "one.xyz.gz").read_bytes()) == (tmp_path / "plain.xyz").read_bytes()
    assert (tmp_path / "one.xyz.gz").read_bytes() == (tmp_path / "two.xyz.gz").read_bytes()
