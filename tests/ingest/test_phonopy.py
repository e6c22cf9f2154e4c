import bz2
import warnings

import h5py
import numpy as np
import pytest
from phonopy import Phonopy
from phonopy.file_IO import write_FORCE_CONSTANTS, write_force_constants_to_hdf5, write_FORCE_SETS
from phonopy.structure.atoms import PhonopyAtoms

from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.phonopy import PhonopyReader
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure
from mlipdb.testing.readers import ReaderConformance

A, SPRING = 3.0, 2.0  # Å between neighbours in a simple cubic lattice of silicon, eV/Å² of each spring


def crystal(size=(2, 1, 1), *, calculator=None, scale=1.0):
    """Silicon in a simple cubic lattice, displaced by phonopy both ways along z, where springs act."""
    unitcell = PhonopyAtoms(symbols=["Si"], cell=np.eye(3) * A * scale, scaled_positions=[[0, 0, 0]])
    with warnings.catch_warnings(action="ignore"):  # of its symmetry
        phonon = Phonopy(unitcell, np.diag(size), primitive_matrix=np.eye(3), calculator=calculator, log_level=0)
    phonon.dataset = {
        "natom": len(phonon.supercell),
        "first_atoms": [{"number": 0, "displacement": [0.0, 0.0, sign * 0.0625]} for sign in (1, -1)],
    }
    return phonon


def springs(phonon):
    """Force constants of springs in every direction between each atom and the others: +2 k on the diagonal for two."""
    atoms = len(phonon.supercell)
    pairs = -SPRING * np.ones((atoms, atoms)) + atoms * SPRING * np.eye(atoms)
    return pairs[:, :, None, None] * np.eye(3)


def write(folder, phonon, *, forces=True, constants=True, name="phonopy_disp.yaml", keep=()):
    folder.mkdir(exist_ok=True, parents=True)
    settings = {"force_sets": False, "displacements": True, "force_constants": False, **dict.fromkeys(keep, True)}
    phonon.save(folder / name, settings=settings)
    hessian = springs(phonon)
    if forces:
        first = []
        for one in phonon.dataset["first_atoms"]:
            moved = np.zeros((len(phonon.supercell), 3))
            moved[one["number"]] = one["displacement"]
            first.append({**one, "forces": -np.einsum("ijab,jb->ia", hessian, moved)})
        write_FORCE_SETS({**phonon.dataset, "first_atoms": first}, filename=folder / "FORCE_SETS")
    if constants:
        write_FORCE_CONSTANTS(hessian, filename=folder / "FORCE_CONSTANTS")
    return folder / name


def read(path, **options):
    return list(PhonopyReader().frames(path, options))


class TestPhonopy(ReaderConformance):
    reader = PhonopyReader()
    text = False
    tolerance = 1e-9
    options = {"file": "mp-7/phonopy_disp.yaml"}  # noqa: RUF012

    def sample(self, folder):
        return write(folder / "mp-7", crystal())

    def first_frame(self):
        # Two atoms, one spring k = 2 eV/Å² in each direction: H = +k on the diagonal, -k between the atoms.
        rows = np.zeros((6, 2, 3))
        for axis in range(3):
            rows[axis, 0, axis] = rows[3 + axis, 1, axis] = SPRING
            rows[axis, 1, axis] = rows[3 + axis, 0, axis] = -SPRING
        return Frame(
            structure=make_structure([14, 14], [[0, 0, 0], [3, 0, 0]], cell=np.diag([6.0, 3.0, 3.0]), pbc=(True,) * 3),
            label=Label(hessian_rows=rows, hessian_row_numbers=np.arange(6, dtype=np.int32)),
            external_id="mp-7-supercell",
            material="mp-7",
            location="the calculation, supercell",
        )


def test_displaced_supercells_have_their_forces_and_share_a_material(tmp_path):
    _, up, down = read(write(tmp_path / "si", crystal()))
    np.testing.assert_allclose(up.structure.positions, [[0.0, 0.0, 0.0625], [3.0, 0.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(up.label.forces, [[0, 0, -0.125], [0, 0, 0.125]], atol=1e-9)  # F = -H u
    np.testing.assert_allclose(down.label.forces, -up.label.forces, atol=1e-9)
    assert up.label.hessian_rows is None
    assert {up.material, down.material} == {"phonopy/si"}
    assert (up.external_id, down.external_id) == ("si-d0001", "si-d0002")


def test_force_constants_are_made_from_the_forces_where_none_are_given(tmp_path):
    phonon = crystal((2, 2, 2))
    supercell, *displaced = read(write(tmp_path / "si", phonon, constants=False))
    expected = springs(phonon).transpose(0, 2, 1, 3).reshape(24, 8, 3)
    np.testing.assert_allclose(supercell.label.hessian_rows, expected, atol=1e-6)
    assert len(displaced) == 2
    path = tmp_path / "si" / "phonopy_disp.yaml"
    assert len(read(path, keys={"hessian": "given"})) == 2
    assert len(read(path, keys={"hessian": "no"})) == 2


def test_compact_force_constants_are_expanded_to_the_whole_supercell(tmp_path):
    phonon = crystal((2, 2, 2))
    full = springs(phonon)
    path = write(tmp_path / "text", phonon, constants=False, forces=False)
    write_FORCE_CONSTANTS(full[:1], filename=tmp_path / "text" / "FORCE_CONSTANTS", p2s_map=np.array([0]))
    stored = write(tmp_path / "hdf5", phonon, constants=False, forces=False)
    write_force_constants_to_hdf5(full[:1], filename=tmp_path / "hdf5" / "force_constants.hdf5", p2s_map=np.array([0]))
    for file in (path, stored):
        (frame,) = read(file)
        np.testing.assert_allclose(
            frame.label.hessian_rows[:, :, 0], full[:, :, :, 0].transpose(0, 2, 1).reshape(24, 8)
        )


def test_forces_and_constants_inside_the_yaml_are_taken(tmp_path):
    phonon = crystal()
    hessian = springs(phonon)
    for one in phonon.dataset["first_atoms"]:
        one["forces"] = -np.einsum("ia,i->ia", hessian[:, 0, :, 2], np.ones(2)) * one["displacement"][2]
    phonon.force_constants = hessian
    phonon.dataset = phonon.dataset
    path = write(tmp_path / "p", phonon, forces=False, constants=False, name="phonopy_params.yaml",
                 keep=("force_sets", "force_constants"))  # fmt: skip
    supercell, up, _ = read(path)
    assert supercell.label.hessian_rows[2, 0, 2] == pytest.approx(SPRING)
    np.testing.assert_allclose(up.label.forces[:, 2], [-0.125, 0.125], atol=1e-9)


def test_units_of_the_calculator_are_converted_and_its_name_is_the_method(tmp_path):
    bohr, rydberg = 0.529177210903, 27.211386245988 / 2
    supercell, up, _ = read(write(tmp_path / "qe", crystal(calculator="qe", scale=1 / bohr)))
    assert supercell.label.method == Method(kind="dft", name="phonopy qe", code="qe")
    np.testing.assert_allclose(supercell.structure.cell, np.diag([6.0, 3.0, 3.0]), rtol=1e-6)
    np.testing.assert_allclose(supercell.label.hessian_rows[0, 0, 0], SPRING * rydberg / bohr**2, rtol=1e-6)
    np.testing.assert_allclose(up.label.forces[1, 2], 0.125 * rydberg / bohr, rtol=1e-6)
    np.testing.assert_allclose(up.structure.positions[0, 2], 0.0625 * bohr, rtol=1e-6)


def test_packed_files_and_folders_are_read_alike(tmp_path):
    path = write(tmp_path / "si", crystal())
    plain = [frame.external_id for frame in read(tmp_path / "si")]
    for name in ("phonopy_disp.yaml", "FORCE_SETS", "FORCE_CONSTANTS"):
        file = tmp_path / "si" / name
        (tmp_path / "si" / f"{name}.bz2").write_bytes(bz2.compress(file.read_bytes()))
        file.unlink()
    packed = path.with_name("phonopy_disp.yaml.bz2")
    assert [frame.external_id for frame in read(packed)] == plain == ["si-supercell", "si-d0001", "si-d0002"]
    assert PhonopyReader().claims(packed, bz2.decompress(packed.read_bytes())) is not None


def test_one_file_of_a_folder_is_claimed(tmp_path):
    first = write(tmp_path / "si", crystal(), name="phonopy_params.yaml")
    second = write(tmp_path / "si", crystal())
    assert PhonopyReader().claims(first, first.read_bytes()) is not None
    assert PhonopyReader().claims(second, second.read_bytes()) is None


def test_a_cut_file_beside_the_yaml_is_named(tmp_path):
    path = write(tmp_path / "si", crystal())
    for name, part in (("FORCE_SETS", 0.6), ("FORCE_CONSTANTS", 0.6)):
        data = (tmp_path / "si" / name).read_bytes()
        (tmp_path / "si" / name).write_bytes(data[: int(len(data) * part)])
        with pytest.raises(IngestError, match=rf"{name}: .*the file was cut"):
            read(path)
        (tmp_path / "si" / name).write_bytes(data)
    (tmp_path / "si" / "FORCE_CONSTANTS").unlink()
    stored = tmp_path / "si" / "force_constants.hdf5"
    write_force_constants_to_hdf5(springs(crystal()), filename=stored)
    stored.write_bytes(stored.read_bytes()[:-100])
    with pytest.raises(IngestError, match="HDF5 cannot read it"):
        read(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda hessian: -hessian, "have the other sign"),
        (lambda hessian: hessian + np.triu(np.ones((2, 2)), 1)[:, :, None, None] * np.eye(3), "not symmetric"),
        (lambda hessian: hessian * np.nan, "not finite"),
    ],
)
def test_force_constants_that_cannot_be_are_rejected_and_the_forces_kept(tmp_path, change, reason):
    path = write(tmp_path / "si", crystal())
    write_FORCE_CONSTANTS(change(springs(crystal())), filename=tmp_path / "si" / "FORCE_CONSTANTS")
    bad, *good = read(path)
    assert isinstance(bad, Rejected)
    assert reason in bad.reason
    assert bad.key == "si-supercell"
    assert [isinstance(frame, Frame) for frame in good] == [True, True]


def test_a_calculation_without_forces_is_rejected_with_the_next_step(tmp_path):
    (bad,) = read(write(tmp_path / "si", crystal(), forces=False, constants=False))
    assert isinstance(bad, Rejected)
    assert "`phonopy -f`" in bad.reason


def test_forces_of_other_displacements_or_of_another_supercell_are_refused(tmp_path):
    path = write(tmp_path / "a", crystal())
    text = (tmp_path / "a" / "FORCE_SETS").read_text()
    (tmp_path / "a" / "FORCE_SETS").write_text(text.replace("0.0625", "0.0325"))
    (bad,) = read(path)
    assert "displacement 1 of FORCE_SETS is not that of" in bad.reason
    write(tmp_path / "b", crystal((2, 2, 1)))
    (tmp_path / "a" / "FORCE_SETS").write_text((tmp_path / "b" / "FORCE_SETS").read_text())
    with pytest.raises(IngestError, match="forces of 4 atoms, the supercell has 2"):
        read(path)


def test_born_charges_are_not_taken_and_a_note_says_so(tmp_path):
    path = write(tmp_path / "si", crystal())
    (tmp_path / "si" / "BORN").write_text("14.4\n")
    notes = []
    read(path, notes=notes)
    assert len(notes) == 1
    assert "BORN" in notes[0]


def test_unknown_keys_name_those_that_are_known(tmp_path):
    with pytest.raises(ConfigError, match="hessian=given"):
        read(write(tmp_path / "si", crystal()), keys={"hessian": "maybe"})


def test_an_hdf5_file_of_something_else_is_rejected(tmp_path):
    path = write(tmp_path / "si", crystal(), constants=False, forces=False)
    with h5py.File(tmp_path / "si" / "force_constants.hdf5", "w") as file:
        file["other"] = [1]
    (bad,) = read(path)
    assert "expected force_constants" in bad.reason


@pytest.mark.parametrize("name", ["NaCl", "MgO", "CaTiO3", "MgB2", "Cr", "Al2O3"])
def test_hessians_of_real_calculations_give_their_forces_back(shared_data, name):
    supercell, *displaced = read(shared_data / "phonopy-examples" / name)
    atoms = len(supercell.structure)
    hessian = supercell.label.hessian_rows.reshape(3 * atoms, 3 * atoms)
    assert supercell.label.hessian_row_numbers.tolist() == list(range(3 * atoms))
    for frame in displaced:
        moved = (frame.structure.positions - supercell.structure.positions).ravel()
        forces = frame.label.forces.ravel()
        # phonopy averages over symmetry, and the crystal is a little anharmonic
        assert np.linalg.norm(hessian @ moved + forces) < 0.05 * np.linalg.norm(forces)


def test_a_primitive_matrix_that_does_not_fit_is_refused_in_words(tmp_path):
    path = write(tmp_path / "calc", crystal())
    text = path.read_text()
    assert "primitive_matrix:" in text
    head, tail = text.split("primitive_matrix:\n", 1)
    rows = tail.split("\n", 3)
    path.write_text(f"{head}primitive_matrix:\n- [ 1, 0, 0 ]\n- [ 0, 0.7, 0 ]\n- [ 0, 0, 1 ]\n{rows[3]}")
    with pytest.raises(IngestError, match=r"phonopy_disp\.yaml: phonopy does not understand it \(\w+Error: \w+"):
        read(path)


def test_a_number_of_hundreds_of_digits_is_refused(tmp_path):
    path = write(tmp_path / "calc", crystal())
    text = path.read_text()
    assert "mass: 28.0855" in text
    path.write_text(text.replace("mass: 28.0855", "mass: 1" + "0" * 400))
    with pytest.raises(IngestError, match="OverflowError"):
        read(path)


def test_random_displacements_are_taken_without_the_hessian_that_phonopy_alone_cannot_make(tmp_path):
    phonon = crystal()
    moved = np.random.default_rng(1).normal(0, 0.03, (2, len(phonon.supercell), 3))
    phonon.dataset = {"displacements": moved, "forces": -np.einsum("ijab,njb->nia", springs(phonon), moved)}
    settings = {"force_sets": True, "displacements": True, "force_constants": False}
    (tmp_path / "run").mkdir()
    phonon.save(tmp_path / "run" / "phonopy_params.yaml", settings=settings)
    notes = []
    frames = read(tmp_path / "run", notes=notes)
    assert [type(frame) for frame in frames] == [Frame, Frame]
    assert all(frame.label.forces is not None and frame.label.hessian_rows is None for frame in frames)
    assert "made no force constants" in notes[0]
    assert "were taken without a Hessian" in notes[0]
