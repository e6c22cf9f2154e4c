import json

import numpy as np
import phonopy
import pytest

import mlipdb
from mlipdb.errors import ConfigError
from mlipdb.export import export
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel, NewStructure
from mlipdb.structures import make_structure
from mlipdb.testing.samples import rock_salt, water


def symmetric_hessian(natoms, seed):
    """Random rows of a symmetric matrix whose every row adds up to zero, as a crystal's do."""
    half = np.random.default_rng(seed).normal(size=(natoms, 3, natoms, 3)) * 1e-3
    whole = half + half.transpose(2, 3, 0, 1)
    for atom in range(natoms):
        whole[atom, :, atom, :] = 0
    for atom in range(natoms):
        block = -whole[atom].sum(axis=1)
        whole[atom, :, atom, :] = (block + block.T) / 2 + 3 * np.eye(3)
    return whole.reshape(3 * natoms, natoms, 3)


@pytest.fixture
def phonons(tmp_path):
    """Two crystals with whole Hessians, one of them in two parts of labels; four structures with less."""
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source("s", reader="none", uri="nowhere")
    pbe = db.method_id(Method(kind="dft", name="PBE"))
    cell = np.array([[5.6, 0.1, 0.0], [0.0, 5.7, 0.2], [0.3, 0.0, 5.8]])
    crystal = make_structure([11, 17, 11], [[0, 0, 0], [1, 2, 3.3], [4, 1 / 3, 2]], cell=cell, pbc=(True,) * 3)
    structures = [crystal, rock_salt(), rock_salt(3, 9), water(), rock_salt(19, 35), rock_salt(37, 53)]
    rows = [symmetric_hessian(len(structure), seed) for seed, structure in enumerate(structures)]
    order = [np.arange(9), np.arange(6)[::-1], np.arange(5), np.arange(9), None, np.arange(3)]
    records = []
    for number, structure in enumerate(structures):
        chosen = order[number]
        some = (
            {} if chosen is None else {"hessian_rows": rows[number][chosen], "hessian_row_numbers": chosen.astype("i4")}
        )
        label = Label(energy_uncorrected=-1.0, **some)
        records.append(NewStructure(structure=structure, label=label, external_id=f"mp-{number}/a", material="m"))
    ids = db.append(records, source_id=source, method_id=pbe)
    more = Label(hessian_rows=rows[5][3:], hessian_row_numbers=np.arange(3, 6, dtype=np.int32))
    db.append_labels([NewLabel(structure_id=ids[5], part=1, label=more)], method_id=pbe)
    db.hessians = rows
    yield db
    db.close()


def test_phonopy_opens_it_with_the_same_force_constants(phonons, tmp_path):
    [report] = export(phonons, "all", format="phonopy", path=tmp_path / "out")
    assert report.written == 3
    for name, number in (("mp-0_a", 0), ("mp-1_a", 1), ("mp-5_a", 5)):
        loaded = phonopy.load(tmp_path / "out" / f"{name}.yaml", symmetrize_fc=False)
        structure = phonons.structure(number + 1)
        natoms = len(structure)
        assert loaded.supercell.cell.tobytes() == structure.cell.tobytes()
        np.testing.assert_allclose(loaded.supercell.positions, structure.positions, atol=1e-14)
        assert loaded.supercell.numbers.tolist() == structure.atomic_numbers.tolist()
        given = phonons.hessians[number].reshape(natoms, 3, natoms, 3).transpose(0, 2, 1, 3)
        np.testing.assert_array_equal(loaded.force_constants, given)


def test_what_is_not_whole_is_refused_with_the_reason(phonons, tmp_path):
    [report] = export(phonons, "all", format="phonopy", path=tmp_path / "out")
    reasons = {skipped.reason.split(":")[0].split(";")[0]: skipped.examples for skipped in report.skipped}
    assert reasons == {
        "its Hessian is not whole": ("mp-2/a",),
        "it is not periodic in three directions, which phonopy needs": ("mp-3/a",),
        "it has no Hessian by this method": ("mp-4/a",),
    }
    assert {lost.what for lost in report.lost} == {"energy_uncorrected", "positions"}
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["skipped"][0]["structures"] == 1


def test_nothing_whole_at_all_is_an_error_and_leaves_no_folder(phonons, tmp_path):
    with pytest.raises(ConfigError, match="nothing to write to out: 1: it is not periodic"):
        export(phonons, "nelements=2 AND elements HAS 'O'".replace("'", '"'), format="phonopy", path=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_frequencies_are_those_of_the_hessian(phonons, tmp_path):
    export(phonons, "all", format="phonopy", path=tmp_path / "out")
    loaded = phonopy.load(tmp_path / "out" / "mp-1_a.yaml", symmetrize_fc=False)
    loaded.run_mesh([1, 1, 1])
    found = loaded.mesh.frequencies[0]
    masses = np.repeat(loaded.primitive.masses, 3)
    dynamical = phonons.hessians[1].reshape(6, 6) / np.sqrt(np.outer(masses, masses))
    # 15.633302 THz: the frequency of 1 eV/Å² on 1 u, sqrt(e/u)/Å / 2π
    expected = np.sqrt(np.linalg.eigvalsh(dynamical)) * 15.633302
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_our_own_reader_gives_the_hessian_back(phonons, tmp_path):
    from mlipdb.ingest.readers.phonopy import PhonopyReader

    export(phonons, "all", format="phonopy", path=tmp_path / "out")
    for name, number in (("mp-0_a", 0), ("mp-1_a", 1), ("mp-5_a", 5)):
        [frame] = PhonopyReader().frames(tmp_path / "out" / f"{name}.yaml", {})
        assert frame.structure.cell.tobytes() == phonons.structure(number + 1).cell.tobytes()
        assert frame.label.hessian_rows.tobytes() == phonons.hessians[number].tobytes()
