import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.lemat import LematReader
from mlipdb.labels import Label, Method
from mlipdb.testing.readers import ReaderConformance
from mlipdb.testing.two_atoms import CELL, FORCES, box, moved, write_parquet

STRESS = [[10.0, 60.0, 50.0], [60.0, 20.0, 40.0], [50.0, 40.0, 30.0]]
VECTORS = pa.list_(pa.list_(pa.float64()))
TYPES = {
    "lattice_vectors": VECTORS, "cartesian_site_positions": VECTORS, "forces": VECTORS, "stress_tensor": VECTORS,
    "species_at_sites": pa.list_(pa.string()), "magnetic_moments": pa.list_(pa.float64()),
    "dimension_types": pa.list_(pa.int8()),
}  # fmt: skip


def row(number=0, **changes):
    values = {
        "immutable_id": f"agm00100{number}",
        "functional": "pbe",
        "species_at_sites": ["H", "O"],
        "cartesian_site_positions": moved(number),
        "lattice_vectors": CELL,
        "dimension_types": [1, 1, 1],
        "energy": -1.5,
        "energy_corrected": -1.25,
        "forces": FORCES,
        "stress_tensor": STRESS,
        "magnetic_moments": [0.25, 0.5],
        "total_magnetization": 0.75,
        "dos_ef": 2.5,
        "cross_compatibility": True,
        "bawl_fingerprint": "abc_1",
    }
    return {name: value for name, value in {**values, **changes}.items() if value is not ...}


def write(path, *rows):
    return write_parquet(path, *rows, types=TYPES)


def read(path, **options):
    return list(LematReader().frames(path, options))


class TestLemat(ReaderConformance):
    reader = LematReader()
    options = {"units": {"stress": "kbar-vasp"}}  # noqa: RUF012
    text = False

    def sample(self, folder):
        return write(folder / "sample.parquet", *map(row, range(4)))

    def first_frame(self):
        label = Label(
            energy_uncorrected=-1.5,
            energy_corrected=-1.25,
            forces=np.array(FORCES),
            stress=np.array(STRESS) / -1602.176634,  # kbar, positive when compressed
            magmoms=np.array([0.25, 0.5]),
            properties={"total_magnetization": 0.75, "dos_ef": 2.5},
            method=Method(kind="dft", name="LeMat PBE/VASP", code="VASP", functional="PBE"),
        )
        return Frame(
            structure=box(),
            label=label,
            external_id="agm001000",
            material="agm001000",
            location="row 0",
            tags={"origin": "agm", "cross_compatibility": "true"},
        )


def test_a_stress_without_a_declared_unit_is_left_out_with_one_note(tmp_path):
    notes = []
    frames = read(write(tmp_path / "s.parquet", row(0), row(1)), notes=notes)
    assert [frame.label.stress for frame in frames] == [None, None]
    assert frames[0].label.forces is not None
    assert len(notes) == 1
    assert "--unit stress='kbar(VASP)'" in notes[0]


def test_frames_of_a_trajectory_are_named_by_relaxation_and_step(tmp_path):
    path = write(tmp_path / "t.parquet", *[row(0, relaxation_number=1, relaxation_step=step) for step in range(2)])
    assert [(f.external_id, f.material) for f in read(path)] == [
        ("agm001000-1-0", "agm001000"), ("agm001000-1-1", "agm001000"),
    ]  # fmt: skip


def test_the_functional_of_a_row_is_its_method(tmp_path):
    path = write(tmp_path / "f.parquet", row(0), row(1, functional="r2scan"), row(2, functional=None))
    methods = [frame.label.method for frame in read(path)]
    assert [method and method.functional for method in methods] == ["PBE", "r2SCAN", None]


def test_columns_that_a_release_drops_are_not_needed(tmp_path):
    few = row(magnetic_moments=..., total_magnetization=..., dos_ef=..., energy_corrected=..., cross_compatibility=...)
    (frame,) = read(write(tmp_path / "d.parquet", few))
    assert frame.label.magmoms is None
    assert frame.label.properties == {}
    assert frame.tags == {"origin": "agm"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"species_at_sites": ["H", "Qq"]}, "site 1 of species_at_sites is not an element"),
        ({"species_at_sites": ["H", None]}, "site 1"),
        ({"immutable_id": None}, "immutable_id is null"),
        ({"lattice_vectors": None}, "are null"),
        ({"lattice_vectors": [[1.0, 0.0, 0.0]] * 3}, "not independent"),
    ],
)
def test_a_row_that_makes_no_sense_is_rejected_and_the_next_is_read(tmp_path, changes, reason):
    bad, good = read(write(tmp_path / "b.parquet", row(0, **changes), row(1)))
    assert isinstance(bad, Rejected)
    assert reason in bad.reason
    assert bad.location == "row 0"
    assert isinstance(good, Frame)


def test_declared_keys_and_other_parquet_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="fixed names"):
        read(write(tmp_path / "k.parquet", row()), keys={"energy": "energy_corrected"})
    with pytest.raises(IngestError, match=r"x\.parquet: there is no column 'immutable_id'"):
        read(write(tmp_path / "x.parquet", row(immutable_id=...)))


def test_the_file_of_real_labels_reads_as_pyarrow_reads_it(shared_data):
    path = shared_data / "derived-containers" / "lemat_bulk_schema_alexandria_1000.parquet"
    frames = read(path, units={"stress": "kbar(VASP)"})
    assert len(frames) == 1000
    for frame, raw in zip(frames, pq.read_table(path).to_pylist(), strict=True):
        assert frame.external_id == raw["immutable_id"]
        assert frame.structure.positions.tolist() == raw["cartesian_site_positions"]
        assert frame.label.energy_uncorrected == raw["energy"]
        assert frame.label.magmoms.tolist() == raw["magnetic_moments"]
        assert frame.label.stress[0, 1] == pytest.approx(-raw["stress_tensor"][0][1] / 1602.176634, rel=1e-12)
