"""The checks on frames made by hand."""

import pickle  # noqa: TID251 - worker processes send summaries by it; nothing is stored
import time
from dataclasses import replace

import numpy as np
import pytest

from mlipdb.ingest import Frame
from mlipdb.ingest.checks import SourceChecks, summarise
from mlipdb.ingest.checks.samples import GroupSample, RowSample
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure


def molecule(index, *, energy=-10.0, numbers=(8, 1, 1), distance=1.0, forces=None, key=None):
    positions = np.array([[0.0, 0, 0], [distance, 0, 0], [0, distance, 0]])[: len(numbers)]
    structure = make_structure(numbers, positions + 0.001 * index)
    label = Label(energy_uncorrected=energy, forces=np.zeros((len(numbers), 3)) if forces is None else forces)
    return Frame(
        structure=structure,
        label=label,
        external_id=key or f"f{index}",
        material=f"m{index}",
        location=f"frame {index}",
    )


def test_sound_crystals_raise_only_that_their_e0_is_open(check, crystals):
    assert set(check(crystals)) == {"open_e0"}


def test_the_order_of_chunks_does_not_matter(check, crystals):
    broken = [replace(f, label=replace(f.label, stress=-f.label.stress)) for f in crystals]
    assert check(broken, chunk=40)["stress_sign_or_unit"].details["factor"] == -1
    assert check(broken, chunk=7)["stress_sign_or_unit"].details["factor"] == -1


def test_asking_twice_gives_the_same(crystals):
    checks = SourceChecks()
    checks.add(summarise(crystals))
    assert checks.findings() == checks.findings()


def test_an_empty_source_has_no_finding():
    checks = SourceChecks()
    checks.add(summarise([]))
    assert checks.findings() == []
    assert checks.frames == 0


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (-1.0, "of the opposite sign"),
        (1602.1766340, "kbar that was read as eV/Å³"),
        (10.0, "kbar that was read as GPa"),
        (-10.0, "kbar that was read as GPa, and of the opposite sign"),
        (0.1, "GPa that was read as kbar"),
    ],
)
def test_a_wrong_stress_is_named_by_the_factor_that_mends_it(check, crystals, relabel, factor, words):
    found = check(relabel(crystals, lambda frame: {"stress": factor * frame.label.stress}))
    assert words in found["stress_sign_or_unit"].message
    assert found["stress_sign_or_unit"].details["factor"] == pytest.approx(1 / factor)
    assert "force_sign_or_unit" not in found


@pytest.mark.parametrize(
    ("factor", "words"), [(-1.0, "gradients"), (1 / 51.4220675, "hartree/bohr"), (-1 / 51.4220675, "opposite sign")]
)
def test_wrong_forces_are_named_by_the_factor_that_mends_them(check, crystals, relabel, factor, words):
    found = check(relabel(crystals, lambda frame: {"forces": factor * frame.label.forces}))
    assert words in found["force_sign_or_unit"].message
    assert "stress_sign_or_unit" not in found


def test_energies_in_hartree_are_told_from_wrong_forces(check, crystals, relabel):
    hartree = 27.211386245988
    found = check(relabel(crystals, lambda f: {"energy_uncorrected": f.label.energy_uncorrected / hartree}))
    assert "hartree that was read as eV" in found["energy_unit"].message
    assert not {"force_sign_or_unit", "stress_sign_or_unit"} & set(found)


def test_a_net_force_is_reported_with_its_worst_frame(check, crystals, relabel):
    def push(frame):
        return {"forces": frame.label.forces + (0.05 if frame.external_id == "3-80" else 0.0)}

    found = check(relabel(crystals, push))
    assert "in 1 of 200 frames" in found["net_force"].message
    assert found["net_force"].details["worst_id"] == "3-80"
    assert found["net_force"].details["worst"] == pytest.approx(1e3 * np.sqrt(3) * 0.05)  # meV/Å per atom


def test_a_large_net_force_in_many_frames_is_one_finding(crystals, relabel):
    checks = SourceChecks()
    checks.add(summarise(relabel(crystals, lambda f: {"forces": f.label.forces + 0.05})))
    assert [finding.check for finding in checks.findings()].count("net_force") == 1


def test_a_small_net_force_counts_only_where_it_is_common(check, crystals, relabel):
    one = relabel(crystals, lambda f: {"forces": f.label.forces + (0.002 if f.external_id == "3-80" else 0.0)})
    assert "net_force" not in check(one)
    assert "net_force" in check(relabel(crystals, lambda f: {"forces": f.label.forces + 0.002}))


def test_a_stress_that_is_not_symmetric_is_an_error(check, crystals, relabel):
    def twist(frame):
        stress = np.array(frame.label.stress)
        stress[0, 1] += 0.02
        return {"stress": stress}

    finding = check(relabel(crystals, twist))["stress_symmetric"]
    assert finding.severity == "error"
    assert finding.details["frames"] == 200


def test_overlapping_atoms_are_found_across_the_cell_boundary(check):
    structure = make_structure([6, 6], [[0.05, 0, 0], [3.95, 0, 0]], cell=4 * np.eye(3), pbc=(True, True, True))
    frame = Frame(structure=structure, label=None, external_id="a", material="a", location="")
    finding = check([frame])["close_atoms"]
    assert finding.details["worst"] == pytest.approx(0.1)
    assert "0.1 Å in a" in finding.message


def test_fractional_positions_taken_for_angstrom_show_as_overlapping_or_dense(check):
    cell = np.eye(3)
    structure = make_structure([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], cell=cell, pbc=(True, True, True))
    frame = Frame(structure=structure, label=None, external_id="a", material="a", location="")
    assert "0.5 Å³" in check([frame])["dense_cells"].message


def test_huge_forces_are_found(check):
    forces = np.array([[900.0, 0, 0], [-900.0, 0, 0], [0, 0, 0]])
    assert "900 eV/Å in f1" in check([molecule(0), molecule(1, forces=forces)])["large_forces"].message


def test_an_energy_far_from_its_composition_is_found(check):
    frames = [molecule(i, energy=-14.0 + 0.01 * (i % 7)) for i in range(50)]
    frames.append(molecule(50, energy=-140.0))
    finding = check(frames)["energy_outliers"]
    assert finding.details["worst_id"] == "f50"
    assert finding.details["worst_ev_per_atom"] == pytest.approx(-42, abs=0.1)


def test_energies_that_were_missing_and_became_zero_are_found(check):
    found = check([molecule(i, energy=-14.0 if i % 5 else 0.0) for i in range(50)])
    assert "10 of 50 energies are exactly 0 (first in f0)" in found["zero_energies"].message


def test_forces_that_are_all_zero_are_found(check):
    assert "50 of 50 frames" in check([molecule(i) for i in range(50)])["zero_forces"].message
    moved = np.array([[0.1, 0, 0], [-0.1, 0, 0], [0, 0, 0]])
    assert "zero_forces" not in check([molecule(i, forces=moved if i % 2 else None) for i in range(50)])


def test_ids_that_come_twice_in_a_material_are_found(check):
    twice = [replace(molecule(i), external_id="same", material="m") for i in range(3)]
    assert "2 of 3 ids come twice" in check(twice)["ids_twice"].message
    assert "ids_twice" not in check([replace(molecule(i), external_id="same") for i in range(3)])


def test_two_methods_that_the_labels_name_are_not_mixed_levels(check):
    frames = [molecule(i, energy=-14.0 - 60 * (i % 2) + 0.01 * (i % 7)) for i in range(60)]
    assert "mixed_levels" in check(frames)
    methods = [Method(kind="dft", name=name) for name in ("PBE", "SCAN")]
    named = [replace(f, label=replace(f.label, method=methods[i % 2])) for i, f in enumerate(frames)]
    assert "mixed_levels" not in check(named)


def test_isolated_atoms_close_the_e0s(check):
    water = [molecule(i, energy=-14.0) for i in range(30)]
    assert check(water)["open_e0"].details["elements"] == ["H", "O"]
    atoms = [molecule(100 + z, energy=-float(z), numbers=(z,)) for z in (1, 8)]
    assert "open_e0" not in check(water + atoms)


def test_summaries_go_to_other_processes_and_stay_small(crystals):
    sent = pickle.dumps(summarise(crystals))
    assert len(sent) / len(crystals) < 400
    assert pickle.loads(sent).keys == tuple(frame.external_id for frame in crystals)


def test_memory_is_bounded_however_many_frames_come(crystals):
    summaries = summarise(crystals)
    rows = RowSample(100, seed=0)
    groups = GroupSample(200)
    for start in range(50):
        rows.add({"energy": summaries.energy, "key": np.array(summaries.keys, dtype=object)})
        groups.add(np.arange(200) // 4 + 50 * start, {"energy": summaries.energy})
    assert rows.seen == 10_000
    assert len(rows.rows()["energy"]) == 100
    kept = groups.rows()["group"]
    assert 0 < len(kept) <= 200
    assert set(np.unique(kept, return_counts=True)[1]) == {4}  # whole groups


def test_one_group_that_is_all_of_a_source_is_cut_not_lost():
    groups = GroupSample(160)
    for start in range(0, 1000, 50):
        groups.add(np.full(50, 7), {"value": np.arange(start, start + 50)})
    values = groups.rows()["value"]
    assert values[:10].tolist() == list(range(10))
    assert 10 <= len(values) <= 160


def test_a_sample_is_fair():
    rows = RowSample(2000, seed=3)
    for start in range(0, 100_000, 1000):
        rows.add({"value": np.arange(start, start + 1000)})
    values = rows.rows()["value"]
    assert abs(values.mean() - 50_000) < 3 * 100_000 / np.sqrt(12 * 2000)
    assert (np.diff(values) > 0).all()


def test_summing_up_costs_microseconds(crystals):
    frames = crystals * 10
    summarise(frames)
    start = time.process_time()
    summarise(frames)
    assert (time.process_time() - start) / len(frames) < 100e-6  # 5 µs on an idle core; a shared one may be slow
