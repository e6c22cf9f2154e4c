import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.colabfit import ColabfitReader
from mlipdb.labels import Label, Method
from mlipdb.testing.readers import ReaderConformance
from mlipdb.testing.two_atoms import CELL, FORCES, box, moved, write_parquet

STRESS = [[0.01, 0.06, 0.05], [0.06, 0.02, 0.04], [0.05, 0.04, 0.03]]
VECTORS = pa.list_(pa.list_(pa.float64()))
TYPES = {
    "positions": VECTORS, "cell": VECTORS, "atomic_forces": VECTORS, "cauchy_stress": VECTORS,
    "pbc": pa.list_(pa.bool_()), "atomic_numbers": pa.list_(pa.int32()), "names": pa.list_(pa.string()),
    "labels": pa.list_(pa.string()), "energy": pa.float64(), "formation_energy": pa.float64(),
    "electronic_band_gap": pa.float64(), "cauchy_stress_volume_normalized": pa.bool_(),
}  # fmt: skip


def row(number=0, **changes):
    values = {
        "property_id": f"PO_{number}",
        "configuration_id": f"CO_{number}",
        "dataset_id": "DS_1",
        "software": "VASP",
        "method": "DFT-PBE",
        "energy": -1.5 - number,
        "atomic_forces": FORCES,
        "cauchy_stress": STRESS,
        "cauchy_stress_volume_normalized": False,
        "electronic_band_gap": 0.5,
        "formation_energy": -0.25,
        "cell": CELL,
        "positions": moved(number),
        "pbc": [True, True, True],
        "atomic_numbers": [1, 8],
        "names": ["train__mp-3-0-0"],
        "labels": ["rattled", "bulk"],
    }
    return {name: value for name, value in {**values, **changes}.items() if value is not ...}


def write(path, *rows, types=TYPES, about=None):
    return write_parquet(path, *rows, types=types, about=about)


def read(path, **options):
    return list(ColabfitReader().frames(path, options))


def one(folder, **changes):
    (found,) = read(write(folder / "one.parquet", row(**changes)))
    return found


class TestColabfit(ReaderConformance):
    reader = ColabfitReader()
    text = False

    def sample(self, folder):
        return write(folder / "sample.parquet", *map(row, range(4)))

    def first_frame(self):
        label = Label(
            energy_uncorrected=-1.5,
            band_gap=0.5,
            forces=np.array(FORCES),
            stress=np.array(STRESS),
            properties={"formation_energy": -0.25},
            method=Method(kind="dft", name="DFT-PBE/VASP", code="VASP", functional="PBE"),
        )
        return Frame(
            structure=box(),
            label=label,
            external_id="PO_0",
            material="mp-3",
            location="row 0",
            tags={"dataset": "DS_1", "label": "bulk, rattled"},
            row=0,
        )


def test_a_missing_stress_is_missing_in_its_row_only(tmp_path):
    path = write(tmp_path / "m.parquet", row(0, cauchy_stress=None), row(1), row(2, atomic_forces=None, energy=None))
    first, second, third = (frame.label for frame in read(path))
    assert first.stress is None
    assert second.stress is not None
    assert (third.energy_uncorrected, third.forces) == (None, None)


def test_each_row_has_the_method_that_it_names(tmp_path):
    path = write(tmp_path / "m.parquet", row(0), row(1, method="CCSD(T)", software=None), row(2, method=None))
    methods = [frame.label.method for frame in read(path)]
    assert [method and (method.name, method.functional, method.code) for method in methods] == [
        ("DFT-PBE/VASP", "PBE", "VASP"), ("CCSD(T)", "CCSD(T)", None), None,
    ]  # fmt: skip


def test_a_stress_that_is_flagged_and_large_was_multiplied_by_the_volume(tmp_path):
    large = (100 * np.array(STRESS)).tolist()  # up to 6 eV: 960 GPa if it were a stress
    label = one(tmp_path, cauchy_stress=large, cauchy_stress_volume_normalized=True).label
    np.testing.assert_allclose(label.stress, 100 * np.array(STRESS) / 40.0, rtol=1e-14)


@pytest.mark.parametrize(("scale", "flag"), [(1, True), (100, False)])
def test_a_stress_whose_size_contradicts_the_flag_is_left_out_with_the_option_that_decides(tmp_path, scale, flag):
    stress = (scale * np.array(STRESS)).tolist()
    path = write(tmp_path / "s.parquet", row(cauchy_stress=stress, cauchy_stress_volume_normalized=flag))
    notes = []
    label = read(path, notes=notes)[0].label
    assert label.stress is None
    assert label.forces is not None
    assert "--unit stress=virial" in notes[0]
    assert read(path, units={"stress": "eV/Å³"})[0].label.stress[0, 0] == 0.01 * scale
    assert read(path, units={"stress": "virial"})[0].label.stress[0, 0] == pytest.approx(0.01 * scale / 40)


def test_a_molecule_has_no_stress_and_no_cell(tmp_path):
    frame = one(tmp_path, pbc=[False, False, False], cell=[[0.0, 0.0, 0.0]] * 3)
    assert frame.structure.volume is None
    assert frame.label.stress is None


def test_a_material_is_an_id_in_the_names_or_a_declared_column_or_the_configuration(tmp_path):
    path = write(tmp_path / "n.parquet", row(0, names=["x"]), row(1, names=None), row(2, names=["a_agm002190202_1"]))
    assert [frame.material for frame in read(path)] == ["DS_1/CO_0", "DS_1/CO_1", "agm002190202"]
    path = write(tmp_path / "k.parquet", row(0, names=["family-1"]))
    assert read(path, keys={"material": "names"})[0].material == "family-1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"positions": [[0.0, 0.0], [1.0, 1.0]]}, "not of 3 numbers"),
        ({"positions": [[0.0, 0.0, 0.0]]}, "expected (2, 3)"),
        ({"atomic_numbers": [1, 200]}, "200 is not an element"),
        ({"atomic_numbers": [1, None]}, "atomic_numbers holds a null"),
        ({"positions": None}, "null"),
        ({"cell": None}, "lattice vector is zero"),
        ({"positions": [[0.0, 0.0, None], [1.0, 1.0, 1.0]]}, "not finite"),
        ({"pbc": [True, True]}, "three values"),
        ({"cauchy_stress": [[0.1, 0.1, 0.1]]}, "expected (3, 3)"),
    ],
)
def test_a_row_that_makes_no_sense_is_rejected_and_the_next_is_read(tmp_path, changes, reason):
    path = write(tmp_path / "b.parquet", row(0, **changes), row(1))
    bad, good = read(path)
    assert isinstance(bad, Rejected)
    assert reason in bad.reason
    assert (bad.key, bad.location) == ("PO_0", "row 0")
    assert isinstance(good, Frame)


def test_a_file_without_a_column_or_of_another_type_says_which(tmp_path):
    path = write(tmp_path / "c.parquet", row(positions=...))
    with pytest.raises(IngestError, match=r"c\.parquet: there is no column 'positions'"):
        read(path)
    texts = write(tmp_path / "t.parquet", row(positions="[[0, 0, 0]]"), types={**TYPES, "positions": pa.string()})
    with pytest.raises(IngestError, match=r"t\.parquet: the column 'positions' is of type string"):
        read(texts)
    with pytest.raises(ConfigError, match="known are material"):
        read(path, keys={"forces": "x"})


def test_rows_of_several_batches_keep_their_numbers(tmp_path):
    path = write(tmp_path / "many.parquet", *map(row, range(2500)))
    frames = read(path)
    assert [frame.row for frame in frames] == list(range(2500))
    assert frames[2049].label.energy_uncorrected == -1.5 - 2049
    assert frames[2049].structure.positions[1, 2] == 1.5 + 0.125 * 2049


def test_nested_lists_of_fixed_size_are_read_too(tmp_path):
    fixed = {**TYPES, "cell": pa.list_(pa.list_(pa.float64(), 3), 3), "positions": pa.large_list(VECTORS.value_type)}
    (frame,) = read(write(tmp_path / "f.parquet", row(), types=fixed))
    assert frame.structure.cell.tolist() == CELL


def test_what_an_export_of_ours_keeps_beside_the_columns_comes_back(tmp_path):
    facts = {"external_id": "mp-1-0-0", "material": "mp-1", "split": "val", "tags": {"family": "oxide"}, "row": 7}
    facts |= {"charge": -1.0, "spin_multiplicity": 2}
    label = {"energy_kind": "energy_corrected", "energy_uncorrected": -9.5, "magmoms": [0.5, -0.5], "scale": 0.25}
    columns = {"configuration_metadata": json.dumps(facts), "property_metadata": json.dumps(label), "material": "mp-1"}
    path = write(tmp_path / "own.parquet", row(names=["x"], **columns), about={"methods": [{}]})
    (frame,) = read(path)
    assert (frame.external_id, frame.material, frame.row) == ("mp-1-0-0", "mp-1", 7)
    assert frame.tags == {"family": "oxide", "split": "val"}
    assert (frame.structure.charge, frame.structure.spin_multiplicity) == (-1.0, 2)
    assert (frame.label.energy_corrected, frame.label.energy_uncorrected) == (-1.5, -9.5)
    assert frame.label.magmoms.tolist() == [0.5, -0.5]
    assert frame.label.properties == {"formation_energy": -0.25, "scale": 0.25}
    (frame,) = read(write(path, row(**columns), about={"methods": [{}, {}]}))
    assert frame.external_id == "PO_0"  # a structure has a row for each method


def test_the_file_of_real_labels_is_read_as_pyarrow_reads_it(shared_data):
    path = shared_data / "derived-containers" / "colabfit_schema_500.parquet"
    notes = []
    frames = read(path, notes=notes)
    assert len(frames) == 500
    assert notes == []
    for frame, raw in zip(frames, pq.read_table(path).to_pylist(), strict=True):
        assert frame.structure.positions.tolist() == raw["positions"]
        assert frame.label.energy_uncorrected == raw["energy"]
        assert frame.label.forces.tolist() == raw["atomic_forces"]
        assert frame.label.stress.tolist() == raw["cauchy_stress"]
    assert len({frame.material for frame in frames}) >= 495
