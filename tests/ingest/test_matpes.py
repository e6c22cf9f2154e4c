import gzip
import json

import numpy as np
import pytest

from mlipdb.errors import ConfigError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.matpes import MatpesReader
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure
from mlipdb.testing.readers import ReaderConformance


def record(number=0, **changes):
    """A record with the fields of the data set's own example page."""
    sites = [
        {
            "species": [{"element": "Sr", "occu": 1}],
            "abc": [0, 0, 0],
            "xyz": [0.0, 0.0, 0.0],
            "properties": {"magmom": 0.5},
        },
        {
            "species": [{"element": "Cd", "occu": 1}],
            "abc": [0.5] * 3,
            "xyz": [2.0, 2.0, 2.0],
            "properties": {"magmom": 0},
        },
    ]
    return {
        "builder_meta": {"license": None},
        "structure": {"lattice": {"matrix": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]]}, "charge": 0.0, "sites": sites},
        "energy": -34.5 - number,
        "forces": [[0.25, 0.5, 0.125], [-0.25, -0.5, -0.125]],
        "stress": [16.0, -8.0, 4.0, 1.0, 2.0, -3.0],
        "matpes_id": f"matpes-20240214_30496_{number}",
        "bandgap": 0.0,
        "functional": "r2SCAN",
        "formation_energy_per_atom": None,
        "cohesive_energy_per_atom": -1.25,
        "bader_magmoms": [-4e-05, -2.4e-05],
        "ddec6": {"spin_moments": [0.0, 0.0]},
        "provenance": {"original_mp_id": "mp-30496", "md_ensemble": "NpT", "md_temperature": 300.0, "md_step": 726},
    } | changes


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def read(path, **options):
    return list(MatpesReader().frames(path, options))


class TestMatpes(ReaderConformance):
    reader = MatpesReader()

    def sample(self, folder):
        return write(folder / "MatPES-R2SCAN-2025.2.json", [record(number) for number in range(5)])

    def first_frame(self):
        structure = make_structure([38, 48], [[0, 0, 0], [2, 2, 2]], cell=np.eye(3) * 4, pbc=(True,) * 3, charge=0.0)
        kbar = -0.1 / 160.2176634  # VASP's sign; the six are xx yy zz yz xz xy
        label = Label(
            energy_uncorrected=-34.5,
            band_gap=0.0,
            forces=np.array([[0.25, 0.5, 0.125], [-0.25, -0.5, -0.125]]),
            stress=np.array([[16.0, -3.0, 2.0], [-3.0, -8.0, 1.0], [2.0, 1.0, 4.0]]) * kbar,
            magmoms=np.array([0.5, 0.0]),
            properties={"cohesive_energy_per_atom": -1.25, "md_temperature": 300.0, "md_step": 726.0},
            method=Method(kind="dft", name="MatPES r2SCAN/VASP", code="VASP", functional="r2SCAN"),
        )
        return Frame(
            structure=structure,
            label=label,
            external_id="matpes-20240214_30496_0",
            material="mp-30496",
            location="byte 1",
            tags={"md_ensemble": "NpT"},
            row=0,
        )


def test_the_row_is_the_position_in_the_file_also_behind_a_bad_record(tmp_path):
    items = read(
        write(tmp_path / "m.json", [record(0), record(1, forces=[[0, 0, 0]]), 7, record(2, stress=[[1]]), record(3)])
    )
    assert [type(item) for item in items] == [Frame, Rejected, Rejected, Rejected, Frame]
    assert items[-1].row == 4
    assert "forces has shape (1, 3) for 2 atoms" in items[1].reason
    assert "expected an object" in items[2].reason
    assert "xx yy zz yz xz xy" in items[3].reason


def test_isolated_atoms_have_no_id_of_their_own_and_get_their_elements(tmp_path):
    atom = record(0)
    atom["structure"]["sites"] = atom["structure"]["sites"][:1]
    atom |= {"matpes_id": None, "forces": [[0.0, 0.0, 0.0]], "provenance": None, "functional": "PBE"}
    (frame,) = read(write(tmp_path / "MatPES-PBE-atoms.json", [atom]), source="matpes-pbe")
    assert (frame.external_id, frame.material) == ("atom-Sr", "matpes-pbe/atom-Sr")
    assert frame.tags == {"kind": "isolated atom"}
    assert frame.row is None  # the official splits count the other file
    assert frame.label.method.functional == "PBE"


def test_null_is_none_and_bader_moments_stand_in_for_missing_ones(tmp_path):
    bare = record(0, stress=None, bandgap=None, provenance=None)
    for site in bare["structure"]["sites"]:
        site["properties"] = {}
    (frame,) = read(write(tmp_path / "m.json", [bare]), source="s")
    assert frame.label.stress is None
    assert frame.label.band_gap is None
    assert frame.label.magmoms.tolist() == [-4e-05, -2.4e-05]
    assert frame.material == "s/matpes-20240214_30496_0"


def test_records_one_a_line_and_packed_are_read_like_a_list(tmp_path):
    path = tmp_path / "m.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(record(number)) for number in range(3)).encode()))
    assert [frame.row for frame in read(path)] == [0, 1, 2]


def test_units_cannot_be_changed(tmp_path):
    with pytest.raises(ConfigError, match="the units of MatPES are fixed"):
        read(write(tmp_path / "m.json", []), units={"stress": "GPa"})
    with pytest.raises(ConfigError, match="the keys of MatPES are fixed"):
        read(write(tmp_path / "m.json", []), keys={"energy": "E"})


def test_a_file_of_the_documented_layout_with_real_labels_is_read_whole(shared_data):
    frames = read(shared_data / "derived-containers/matpes_layout_alexandria_300.json.gz")
    assert [frame.row for frame in frames] == list(range(300))
    assert frames[0].label.stress[0, 0] == pytest.approx(6.349465 / 1602.176634, rel=1e-9)
