import gzip
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.extxyz import ExtxyzReader
from mlipdb.labels import Label
from mlipdb.structures import make_structure
from mlipdb.testing.readers import ReaderConformance

CELL = 'Lattice="4.0 0.0 0.0 0.0 5.0 0.0 0.0 0.0 2.0"'
FORCES = "Properties=species:S:1:pos:R:3:forces:R:3"
ROWS = ("H 0.0 0.0 0.0 0.1 0.2 0.3", "O 0.5 1.0 1.5 -0.1 -0.2 -0.3")


def write(folder, *comments, rows=ROWS, name="f.xyz"):
    path = folder / name
    path.write_text("".join(f"{len(rows)}\n{comment}\n" + "".join(f"{row}\n" for row in rows) for comment in comments))
    return path


def read(path, **options):
    return list(ExtxyzReader().frames(Path(path), options))


def one(folder, info, *, rows=ROWS, properties=FORCES, cell=CELL, **options):
    (found,) = read(write(folder, f"{cell} {properties} {info}", rows=rows), **options)
    return found


class TestExtxyz(ReaderConformance):
    reader = ExtxyzReader()
    options = {"units": {"energy": "kcal/mol", "forces": "hartree/bohr", "stress": "GPa"}}  # noqa: RUF012

    def sample(self, folder):
        info = f"{CELL} {FORCES}:magmoms:R:1 energy=-{{}} free_energy=-2 bandgap=1.5 mp_id=mp-3 frame_id=mp-3-0-{{}} "
        info += 'scale=0.5 stress="1 2 3 4 5 6"'
        rows = [f"{row} 0.25" for row in ROWS]
        return write(folder, *(info.format(step + 1, step) for step in range(3)), rows=rows, name="sample.extxyz")

    def first_frame(self):
        structure = make_structure(
            [1, 8], [[0.0, 0.0, 0.0], [0.5, 1.0, 1.5]], cell=np.diag([4.0, 5.0, 2.0]), pbc=(True, True, True)
        )
        # 1 kcal/mol = 4184 J/mol / 96485.33212331 C/mol; hartree and bohr are CODATA 2018; 160.2176634 GPa = 1 eV/Å³.
        kcal, hartree_per_bohr, gpa = 4184 / 96485.33212331001, 27.211386245988 / 0.529177210903, 1 / 160.2176634
        label = Label(
            energy_uncorrected=-1.0 * kcal,
            free_energy=-2.0 * kcal,
            band_gap=1.5,
            forces=np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]]) * hartree_per_bohr,
            stress=np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]]) * gpa,
            magmoms=np.array([0.25, 0.25]),
            properties={"scale": 0.5},
        )
        return Frame(structure=structure, label=label, external_id="mp-3-0-0", material="mp-3", location="frame 0")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.sampled_from([True, False, (True, True, False)]))
def test_files_that_ase_writes_come_back_as_they_were(tmp_path, seed, natoms, pbc):
    random = np.random.default_rng(seed)
    cell = np.diag(random.uniform(3, 9, 3)) + random.uniform(-0.5, 0.5, (3, 3))
    atoms = ase.Atoms(
        numbers=random.integers(1, 100, natoms), positions=random.normal(size=(natoms, 3)), cell=cell, pbc=pbc
    )
    results = {"energy": random.normal(), "forces": random.normal(size=(natoms, 3)), "stress": random.normal(size=6)}
    atoms.calc = SinglePointCalculator(atoms, **results)
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    (frame,) = read(tmp_path / "a.xyz")
    assert frame.structure.atomic_numbers.tolist() == atoms.numbers.tolist()
    assert frame.structure.pbc == tuple(bool(axis) for axis in atoms.pbc)
    np.testing.assert_allclose(frame.structure.positions, atoms.positions, atol=1e-8)  # eight decimals in the file
    np.testing.assert_array_equal(frame.structure.cell, cell)
    assert frame.label.energy_uncorrected == results["energy"]
    np.testing.assert_allclose(frame.label.forces, results["forces"], atol=1e-8)
    if pbc is True:
        np.testing.assert_allclose(frame.label.stress, atoms.get_stress(voigt=False), rtol=1e-15)
    else:
        assert frame.label.stress is None


def test_two_candidates_that_differ_stop_with_both_values_and_the_flag(tmp_path):
    path = write(tmp_path, f"{CELL} {FORCES} energy=-1.0", f"{CELL} {FORCES} energy=-1.0 REF_energy=-2.5")
    frames = ExtxyzReader().frames(path, {})
    next(frames)
    with pytest.raises(IngestError) as caught:
        next(frames)
    message = str(caught.value)
    for part in (str(path), "frame 1", "energy is -1.0", "REF_energy is -2.5", "--key energy=REF_energy"):
        assert part in message


def test_a_declared_key_settles_which_candidate_is_meant(tmp_path):
    info = "energy=-1.0 REF_energy=-2.5"
    assert one(tmp_path, info, keys={"energy": "REF_energy"}).label.energy_uncorrected == -2.5
    assert one(tmp_path, info, keys={"energy": "energy"}).label.energy_uncorrected == -1.0


def test_candidates_that_agree_are_one_quantity(tmp_path):
    assert one(tmp_path, "energy=-1.0 REF_energy=-1.00").label.energy_uncorrected == -1.0


def test_force_columns_that_differ_stop_the_run(tmp_path):
    rows = [f"{row} 0 0 0" for row in ROWS]
    properties = FORCES + ":REF_forces:R:3"
    with pytest.raises(IngestError, match="--key forces=REF_forces"):
        one(tmp_path, "", rows=rows, properties=properties)
    frame = one(tmp_path, "", rows=rows, properties=properties, keys={"forces": "REF_forces"})
    assert not frame.label.forces.any()


def test_a_declared_key_that_no_frame_has_names_the_near_one(tmp_path):
    with pytest.raises(IngestError, match=r"none of the first 1 frames has 'REF_enrgy'\. Did you mean 'REF_energy'"):
        one(tmp_path, "REF_energy=-1", keys={"energy": "REF_enrgy"})


def test_a_declared_key_may_be_absent_from_some_frames(tmp_path):
    path = write(tmp_path, f"{CELL} {FORCES}", f"{CELL} {FORCES} e0=-1.0")
    first, second = read(path, keys={"energy": "e0"})
    assert first.label.energy_uncorrected is None
    assert second.label.energy_uncorrected == -1.0


def test_unknown_quantities_and_units_are_errors_with_a_suggestion(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'energy'"):
        one(tmp_path, "", keys={"enrgy": "x"})
    with pytest.raises(ConfigError, match="--unit"):
        one(tmp_path, "", units={"bandgap": "eV"})
    for word in ("kcla/mol", "-kcla/mol"):
        with pytest.raises(ConfigError, match=r"--unit energy=-?kcla/mol: .*Did you mean 'kcal/mol'"):
            one(tmp_path, "energy=-1", units={"energy": word})
    with pytest.raises(ConfigError, match="no unit of energy"):
        one(tmp_path, "energy=-1", units={"energy": "eV/Å"})


def test_a_declared_unit_is_understood_as_files_spell_it_and_a_minus_turns_the_sign(tmp_path):
    frame = one(tmp_path, 'energy=-1 stress="1 2 3 4 5 6"', units={"energy": "Ha", "stress": "-eV/Ang^3"})
    assert frame.label.energy_uncorrected == -27.211386245988
    assert np.diag(frame.label.stress).tolist() == [-1.0, -2.0, -3.0]


@pytest.mark.parametrize("unit", ["furlong", "Å"])
def test_a_unit_of_the_file_that_is_none_refuses_the_frame_with_the_way_out(tmp_path, unit):
    bad = one(tmp_path, f"energy=-1 energy_unit={unit}")
    assert f"energy_unit={unit} is no known unit of energy; declare it with --unit energy=" in bad.reason


def test_units_that_the_file_states_are_used(tmp_path):
    frame = one(tmp_path, "energy=-1 energy_unit=hartree forces_unit=eV/A")
    assert frame.label.energy_uncorrected == -27.211386245988
    assert frame.label.forces[0].tolist() == [0.1, 0.2, 0.3]


def test_positions_and_cell_share_their_unit(tmp_path):
    frame = one(tmp_path, "", units={"positions": "bohr"})
    assert frame.structure.cell[0, 0] == 4.0 * 0.529177210903
    assert frame.structure.positions[1, 2] == 1.5 * 0.529177210903


@pytest.mark.parametrize("row", ["[]", '"x"', "1e999", "1e30", "-1"])
def test_a_row_of_an_export_that_is_no_number_refuses_the_frame(tmp_path, row):
    escaped = row.replace('"', '\\"')
    bad = one(tmp_path, f'energy=-1 mlipdb="{{\\"row\\": {escaped}}}"')
    assert "is not what an export of mlipdb writes" in bad.reason


def test_a_virial_is_minus_stress_times_volume(tmp_path):
    frame = one(tmp_path, 'virial="40 0 0 0 80 0 0 0 -40"')  # 40 Å³
    np.testing.assert_array_equal(frame.label.stress, np.diag([-1.0, -2.0, 1.0]))


def test_a_stress_that_contradicts_the_virial_stops_the_run(tmp_path):
    both = 'virial="40 0 0 0 80 0 0 0 -40" stress="{}"'
    assert one(tmp_path, both.format("-1 0 0 0 -2 0 0 0 1")).label.stress[1, 1] == -2.0
    with pytest.raises(IngestError, match="keys could be the stress and they differ"):
        one(tmp_path, both.format("1 0 0 0 2 0 0 0 -1"))


def test_energy_and_free_energy_are_two_columns(tmp_path):
    label = one(tmp_path, "energy=-1.0 free_energy=-1.5").label
    assert (label.energy_uncorrected, label.free_energy) == (-1.0, -1.5)


def test_integer_columns_are_cast(tmp_path):
    rows = ("Si 0 0 0 0 0 0 1", "Si 1 1 1 0 0 0 0")
    frame = one(tmp_path, "", rows=rows, properties="Properties=species:S:1:pos:R:3:forces:I:3:magmoms:I:1")
    assert frame.label.forces.dtype == np.float64
    assert frame.label.magmoms.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        (CELL, (True, True, True)),
        (f'{CELL} pbc="T T F"', (True, True, False)),
        (f"{CELL} pbc=[F,F,F]", (False, False, False)),
        (f"{CELL} pbc=F", (False, False, False)),
        ("", (False, False, False)),
    ],
)
def test_periodicity_is_what_pbc_says_else_that_of_a_crystal_with_a_lattice(tmp_path, comment, expected):
    assert one(tmp_path, "", cell=comment).structure.pbc == expected


@pytest.mark.parametrize(
    ("comment", "name", "value"),
    [
        ("a=1.5 b='2.5' c=\"3.5\" d={4.5}", "d", 4.5),
        (r'note="say \"hi\" = 3" b=2', "b", 2.0),
        ("nested=[[1,2],[3,4]] b=2", "b", 2.0),
        ("flag b=2 other", "b", 2.0),
        ("b = 2", "b", 2.0),
        ('"quoted key"=2', "quoted key", 2.0),
        ("<R2>=35.25", "<R2>", 35.25),
    ],
)
def test_the_comment_line_is_parsed_in_all_its_forms(tmp_path, comment, name, value):
    assert one(tmp_path, comment).label.properties[name] == value


def test_text_flags_and_nan_are_no_properties(tmp_path):
    label = one(tmp_path, "config=bulk flag=T gap=nan n=3").label
    assert label.properties == {"n": 3.0}


def test_ids_fall_back_to_task_calc_and_step_and_then_to_file_and_index(tmp_path):
    frame = one(tmp_path, "material_id=mp-149 task_id=mp-655585 calc_id=0 ionic_step=2")
    assert (frame.external_id, frame.material) == ("mp-655585-0-2", "mp-149")
    frame = one(tmp_path, "", source="mine")
    assert (frame.external_id, frame.material) == ("f-0", "mine/f-0")


@pytest.mark.parametrize(
    ("rows", "info", "reason"),
    [
        (("H 0 0 0 1 1 1", "O 1 1 1 1"), "", "atom row 1 has 5 columns"),
        (("H 0 0 0 1 1 1", "Qq 1 1 1 1 1 1"), "", "'Qq' in row 1 is not an element"),
        (("H 0 0 0 1 1 x", "O 1 1 1 1 1 1"), "", "forces: could not convert"),
        (ROWS, 'pbc="T T X"', "pbc='T T X'"),
        (ROWS, 'stress="1 2 3"', "expected 6 or 9"),
        (ROWS, 'stress="1 2 3 4 5 6 7 8 9"', "not symmetric"),
        (ROWS, "energy=low", "energy"),
        (ROWS, "spin_multiplicity=nan", "spin multiplicity is nan; expected 2S+1, a whole number from 1 on"),
        (ROWS, "spin_multiplicity=1e30", "spin multiplicity is 1e+30"),
        (ROWS, "spin_multiplicity=1.5", "spin multiplicity is 1.5"),
        (ROWS, "spin_multiplicity=0", "spin multiplicity is 0.0"),
        (ROWS, "charge=nan", "charge is nan; expected a finite number"),
        (ROWS, "charge=-inf", "charge is -inf"),
    ],
)
def test_a_frame_that_makes_no_sense_is_rejected_and_the_next_is_read(tmp_path, rows, info, reason):
    path = write(tmp_path, f"{CELL} {FORCES} {info}", rows=rows)
    path.write_text(path.read_text() + write(tmp_path, f"{CELL} {FORCES}", name="good.xyz").read_text())
    bad, good = read(path)
    assert isinstance(bad, Rejected)
    assert reason in bad.reason
    assert bad.location == "frame 0"
    assert isinstance(good, Frame)


def test_a_line_that_starts_no_frame_is_an_error_with_its_line(tmp_path):
    path = write(tmp_path, CELL, rows=("H 0 0 0",))
    start = path.stat().st_size
    path.write_text(path.read_text() + "garbage\n")
    frames = ExtxyzReader().frames(path, {})
    next(frames)
    with pytest.raises(
        IngestError, match=rf"line 4 \(byte {start}\): expected the number of atoms of a frame, found 'garbage'"
    ):
        next(frames)


def test_a_last_number_that_is_cut_is_noticed_though_its_row_has_all_columns(tmp_path):
    rows = ("H 0.00000000 0.00000000 0.12500000", "O 0.00000000 0.00000000 0.12500000")
    path = write(tmp_path, CELL, rows=rows)
    whole = path.read_text()
    path.write_text(whole[:-1])
    assert len(read(path)) == 1  # only the final newline is missing
    path.write_text(whole[:-4])
    with pytest.raises(IngestError, match="inside the last row of frame 0"):
        read(path)


def test_blank_lines_at_the_end_are_no_frame(tmp_path):
    path = write(tmp_path, CELL, rows=("H 0 0 0",))
    path.write_text(path.read_text() + "\n\n")
    assert len(read(path)) == 1


def test_gzip_is_read_like_plain_text(tmp_path):
    path = write(tmp_path, *[f"{CELL} {FORCES} energy=-{n}" for n in range(50)])
    packed = tmp_path / "f.xyz.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [f.label.content_hash for f in read(path)] == [f.label.content_hash for f in read(packed)]


FILES = [
    ("mattersim-benchmarks/mptrj-random-1k.xyz", 1000, 998),
    ("mattersim-benchmarks/alexandria-random-1k.xyz.gz", 1000, 1000),
    ("metatrain/carbon_reduced_100.xyz", 100, 100),
    ("metatrain/ethanol_reduced_100.xyz", 100, 100),
    ("metatrain/qm9_reduced_100.xyz", 100, 100),
    ("metatrain/hea_samples_bulk.xyz.gz", 100, 100),
    ("botnet-datasets/dataset_acac/test_dihedral.xyz", 45, 45),
    ("botnet-datasets/dataset_3BPA/iso_atoms.xyz", 4, 4),
    ("nacl-water/r2SCAN_gen3.extxyz.gz", 150, 150),
    ("sevennet/hfo2.extxyz", 2, 2),
    ("nequix/data/mp-149.extxyz", 7, 1),
    ("fairchem/toy_c3h8_relax.extxyz.gz", 101, 101),
]


@pytest.mark.parametrize(("name", "count", "materials"), FILES, ids=[name for name, _, _ in FILES])
def test_a_real_file_reads_as_ase_reads_it(shared_data, tmp_path, name, count, materials):
    frames = read(shared_data / name)
    assert len(frames) == count
    assert all(isinstance(frame, Frame) for frame in frames)
    assert len({frame.material for frame in frames}) == materials
    text = shared_data / name
    if name.endswith(".gz"):  # ase seeks in the packed file again for each frame
        text = tmp_path / "plain.xyz"
        text.write_bytes(gzip.decompress((shared_data / name).read_bytes()))
    for frame, atoms in zip(frames, ase.io.iread(text, index=":", format="extxyz"), strict=True):
        assert np.array_equal(frame.structure.positions, atoms.positions)
        assert np.array_equal(frame.structure.cell, atoms.cell[:])
        results = atoms.calc.results if atoms.calc else {}
        if "energy" in results:
            assert frame.label.energy_uncorrected == results["energy"]
        if "forces" in results:
            assert np.array_equal(frame.label.forces, results["forces"])
        if "stress" in results and all(atoms.pbc):
            np.testing.assert_allclose(frame.label.stress, atoms.get_stress(voigt=False), atol=1e-9)


def test_words_for_tags_are_kept_and_are_no_properties(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text('1\nenergy=1 split=train config_type=3 subset="SPICE Dipeptides" run=7\nH 0 0 0\n')
    (frame,) = ExtxyzReader().frames(path, {})
    assert frame.tags == {"split": "train", "config_type": "3", "subset": "SPICE Dipeptides"}
    assert frame.label.properties == {"run": 7.0}
    (frame,) = ExtxyzReader().frames(path, {"keys": {"tags": "run,nothing"}})
    assert frame.tags == {"run": "7"}


def test_tags_and_row_of_an_export_of_ours_come_back(tmp_path):
    path = tmp_path / "a.xyz"
    own = r'"_JSON {\"row\":3,\"tags\":{\"level\":\"a \\\"b\\\"\"}}"'
    path.write_text(f"1\nenergy=1 mlipdb={own}\nH 0 0 0\n1\nenergy=1 mlipdb=what\nH 0 0 0\n")
    kept, refused = ExtxyzReader().frames(path, {})
    assert (kept.tags, kept.row) == ({"level": 'a "b"'}, 3)
    assert "is not what an export of mlipdb writes" in refused.reason
