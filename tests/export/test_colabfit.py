import json

import numpy as np
import pyarrow.parquet as pq

from mlipdb.export import export
from mlipdb.export.colabfit import _anonymous, _hill
from mlipdb.ingest.readers.colabfit import ColabfitReader


def test_our_own_reader_gives_back_every_bit_of_the_columns(db, tmp_path, same_structure, same_label):
    [report] = export(db, "all", format="colabfit", path=tmp_path / "all.parquet")
    assert (report.written, report.lost) == (35, ())
    options = {"keys": {"material": "material"}, "units": {"stress": "eV/Å³"}}
    frames = list(ColabfitReader().frames(tmp_path / "all.parquet", options))
    in_metadata = ("properties", "magmoms", "energy_corrected", "free_energy", "energy_zero")
    for frame, (structure, label) in zip(frames, db.read(db.query("all").ids, method_id=1), strict=True):
        if structure.charge is None:
            same_structure(structure, frame.structure)
        same_label(label, frame.label, but=in_metadata)
        assert frame.material == db.entry(structure.id).material
        assert (frame.label.method.functional, frame.label.method.code) == ("PBE", "VASP")


def test_what_has_no_column_is_in_the_metadata_to_the_bit(db, tmp_path):
    export(db, "all", format="colabfit", path=tmp_path / "all.parquet")
    row = pq.read_table(tmp_path / "all.parquet").to_pylist()[33]
    label = db.labels(34)[0]
    of_property, of_structure = json.loads(row["property_metadata"]), json.loads(row["configuration_metadata"])
    assert of_property["energy_kind"] == "energy_uncorrected"
    assert of_property["energy_corrected"] == label.energy_corrected
    assert of_property["magmoms"] == label.magmoms.tolist()
    assert of_property["Ångström's"] == 1e-300
    assert (of_structure["charge"], of_structure["spin_multiplicity"], of_structure["row"]) == (-1.0, 1, 3)
    assert of_structure["tags"] == {"subset": 'It\'s "quoted"', "level": "3"}
    assert (row["names"], row["labels"][0]) == (["awkward 3", "mp-3"], "level=3")


def test_the_columns_and_types_are_colabfits(shared_data, db, tmp_path):
    export(db, "all", format="colabfit", path=tmp_path / "all.parquet")
    published = pq.read_schema(shared_data / "derived-containers" / "colabfit_schema_500.parquet")
    ours = pq.read_schema(tmp_path / "all.parquet")
    left_out = {"metadata", "has_forces", "has_stress", "element_filter"}  # of the copy on Hugging Face
    for field in published:
        if field.name not in left_out:
            assert ours.field(field.name).type == field.type, field.name


def test_facts_of_a_row_are_right(db, tmp_path):
    export(db, "H2O", format="colabfit", path=tmp_path / "water.parquet")
    [row] = pq.read_table(tmp_path / "water.parquet").to_pylist()
    forces = db.labels(33)[0].forces
    assert (row["chemical_formula_hill"], row["chemical_formula_anonymous"]) == ("H2O", "A2B")
    assert (row["elements"], row["elements_ratios"]) == (["H", "O"], [2 / 3, 1 / 3])
    assert (row["nsites"], row["nperiodic_dimensions"], row["dimension_types"]) == (3, 0, [0, 0, 0])
    assert row["max_force_norm"] == max(np.linalg.norm(force) for force in forces)
    assert (row["method"], row["software"]) == ("DFT-PBE", "VASP")
    assert row["cauchy_stress"] is None


def test_each_method_has_its_rows(db, tmp_path):
    [report] = export(db, "all", format="colabfit", path=tmp_path / "a.parquet", methods=["PBE/VASP", "nequix-mp-1"])
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert (report.written, len(rows)) == (35, 35 + 18)
    assert rows[0]["configuration_id"] == rows[1]["configuration_id"]
    assert len({row["property_id"] for row in rows}) == len(rows)
    assert [row["method"] for row in rows[:3]] == ["DFT-PBE", "nequix-mp-1", "DFT-PBE"]


def test_a_structure_without_a_label_has_a_row_of_nulls(db, tmp_path):
    export(db, "all", format="colabfit", path=tmp_path / "a.parquet", methods=["nequix-mp-1"])
    row = pq.read_table(tmp_path / "a.parquet").to_pylist()[1]
    assert row["energy"] is row["atomic_forces"] is row["method"] is None
    assert row["positions"]


def test_the_file_says_where_it_came_from_and_repeats_to_the_byte(db, tmp_path):
    for name in ("one.parquet", "two.parquet"):
        export(db, "everything", format="colabfit", path=tmp_path / name)
    about = json.loads(pq.read_schema(tmp_path / "one.parquet").metadata[b"mlipdb"])
    assert (about["database"], about["subset"]["name"]) == (db.uuid, "everything")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_formulas_are_in_hills_order_and_anonymous_by_count():
    assert _hill({"H": 6, "C": 2, "O": 1}) == "C2H6O"
    assert _hill({"O": 1, "H": 2, "Br": 1}) == "BrH2O"
    assert _anonymous([2, 4, 2]) == "A2BC"
