"""The checks on real data: quiet on sound sources, loud on the traps that the data's README lists."""

from dataclasses import replace

import numpy as np
import pytest
from ase.io import read

from mlipdb.ingest import Frame
from mlipdb.labels import Label
from mlipdb.structures import make_structure

KBAR = 1 / 1602.1766340
SAMPLE = "derived-containers/MPtrj_2022.9_sample.json.gz"
STRAINED = "emmet-mp-tasks/elastic_tasks_SiC_LuFe2B2.extxyz.gz"


@pytest.mark.parametrize("name", [SAMPLE, "own-gpaw-pbe/gpaw_pbe_mptrj_layout.json.gz"])
def test_sound_trajectories_raise_no_alarm(check, mptrj, name):
    assert check(mptrj(name)) == {}


@pytest.mark.parametrize("name", ["mptrj-random-1k.xyz", "alexandria-random-1k.xyz.gz"])
def test_sound_single_frames_raise_no_alarm(check, extxyz, name):
    assert check(extxyz(f"mattersim-benchmarks/{name}")) == {}


def test_relaxed_crystals_of_alexandria_raise_no_alarm(check, alexandria):
    assert check(alexandria("P000")) == {}


def test_a_stress_of_mptrj_with_the_sign_of_vasp_is_found(check, mptrj, relabel):
    frames = relabel(mptrj(SAMPLE), lambda frame: {"stress": -frame.label.stress})
    found = check(frames)
    assert set(found) == {"stress_sign_or_unit"}
    assert found["stress_sign_or_unit"].severity == "error"
    assert found["stress_sign_or_unit"].details["factor"] == -1
    assert "opposite sign" in found["stress_sign_or_unit"].message


@pytest.mark.parametrize(
    ("factor", "step"),
    [
        (1 / KBAR, "kbar that was read as eV/Å³. Ingest again with --unit stress=kbar"),
        (-1 / KBAR, "opposite sign. Ingest again with --unit 'stress=kbar(VASP)'"),
        (160.21766, "GPa that was read as eV/Å³"),
        (0.1, "GPa that was read as kbar"),
    ],
)
def test_a_stress_in_another_unit_is_named_from_the_strained_crystals(check, extxyz, relabel, factor, step):
    frames = relabel(extxyz(STRAINED), lambda frame: {"stress": factor * frame.label.stress})
    assert step in check(frames)["stress_sign_or_unit"].message


def test_the_strained_crystals_as_they_are_have_the_right_stress_and_forces(check, extxyz):
    assert set(check(extxyz(STRAINED))) == {"open_e0"}  # silicon and carbon come in one ratio


def test_forces_that_are_gradients_are_found_along_a_relaxation(check, mptrj, relabel):
    found = check(relabel(mptrj(SAMPLE), lambda frame: {"forces": -frame.label.forces}))
    assert "gradients" in found["force_sign_or_unit"].message


def test_the_oxides_labelled_gpa_are_found_to_be_kbar_of_vasp(check, oxides):
    found = check(oxides(10 * KBAR))  # the file's numbers taken for GPa, as its own text says
    assert "kbar that was read as GPa, and of the opposite sign" in found["stress_sign_or_unit"].message
    assert "--unit 'stress=kbar(VASP)'" in found["stress_sign_or_unit"].message


def test_the_oxides_in_the_right_unit_have_the_right_stress(check, oxides):
    assert "stress_sign_or_unit" not in check(oxides(-KBAR))


def test_four_functionals_in_one_source_are_found(check, oxides):
    frames = oxides(-KBAR)
    assert "several levels of theory" in check(frames)["mixed_levels"].message
    pooled = [replace(frame, material=frame.material.rsplit("-", 1)[0]) for frame in frames]
    assert "mixed_levels" in check(pooled)
    one = [frame for frame in frames if "-PBE-" in frame.external_id]
    assert "mixed_levels" not in check(one)


def test_scan_energies_among_pbe_ones_are_found(check, mptrj, shared_data):
    scan = [scan_frame(path) for path in sorted((shared_data / "sevennet" / "OUTCARs").rglob("OUTCAR*.gz"))]
    assert len(scan) == 10
    found = check(mptrj(SAMPLE) + scan)
    assert set(found) == {"mixed_levels"}
    assert found["mixed_levels"].details["frames"] == 10
    assert found["mixed_levels"].details["shift_ev_per_atom"] < -15


def scan_frame(path):
    atoms = read(path, format="vasp-out")
    structure = make_structure(atoms.numbers, atoms.positions, cell=np.array(atoms.cell), pbc=(True, True, True))
    energy = atoms.get_potential_energy(force_consistent=True)
    label = Label(energy_uncorrected=energy, forces=atoms.get_forces())
    return Frame(structure=structure, label=label, external_id=path.name, material=path.name, location="")


def test_enthalpies_at_one_pressure_are_found(check, alexandria):
    found = check(alexandria("P050"))
    assert set(found) == {"enthalpies"}
    assert "about 50 GPa" in found["enthalpies"].message


def test_enthalpies_are_found_where_the_same_crystals_come_at_two_pressures(check, alexandria):
    found = check(alexandria("P000") + alexandria("P050"))
    assert found["enthalpies"].details["agree"] > 9000
    assert "work and pV" in found["enthalpies"].message


def test_energies_at_high_pressure_raise_no_alarm(check, alexandria, relabel):
    def without_pv(frame):
        pressure = -np.trace(frame.label.stress) / 3
        return {"energy_uncorrected": frame.label.energy_uncorrected - pressure * frame.structure.volume}

    energies = relabel(alexandria("P050"), without_pv)
    assert check(energies) == {}
    assert check(alexandria("P000") + energies) == {}


def test_one_molecule_leaves_its_e0_open_until_isolated_atoms_come(check, extxyz):
    train = extxyz("botnet-datasets/dataset_3BPA/train_300K.xyz")
    assert check(train)["open_e0"].details["elements"] == ["H", "C", "N", "O"]
    assert check(train + extxyz("botnet-datasets/dataset_3BPA/iso_atoms.xyz")) == {}
