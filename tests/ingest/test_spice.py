import h5py
import numpy as np
import pytest

from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.spice import SpiceReader
from mlipdb.ingest.smiles import formal_charge, numbered_elements
from mlipdb.labels import Label
from mlipdb.structures import make_structure
from mlipdb.testing.readers import ReaderConformance

HYDROXIDE = "[O-:1][H:2]"
PLACES = [[0.0, 0.0, 0.0], [0.0, 0.0, 1.75]]  # bohr, as float32 holds them exactly
GRADIENT = [[0.0, 0.0, 0.5], [0.0, 0.0, -0.5]]
BOHR, HARTREE = 0.529177210903, 27.211386245988


def group(file, name="hydroxide", *, count=2, smiles=HYDROXIDE, leave_out=(), units=None, numbers=(8, 1)):
    units = {"conformations": "bohr", "dft_total_gradient": "hartree/bohr", "energy": "hartree"} | (units or {})
    found = file.create_group(name)
    found["subset"] = ["SPICE Ion Pairs"]
    if smiles:
        found["smiles"] = [smiles]
    data = {
        "atomic_numbers": np.array(numbers, dtype=np.int16),
        "conformations": np.array([PLACES] * count, dtype=np.float32) + 0.25 * np.arange(count)[:, None, None],
        "dft_total_energy": np.array([-75.5 - step for step in range(count)]),
        "formation_energy": np.array([-0.25] * count),
        "dft_total_gradient": np.array([GRADIENT] * count, dtype=np.float32),
    }
    for key, values in data.items():
        if key not in leave_out:
            found[key] = values
            unit = units.get(key, units["energy"]) if key != "atomic_numbers" else None
            if unit:
                found[key].attrs["units"] = unit
    return found


def write(folder, name="sample.hdf5", **settings):
    path = folder / name
    with h5py.File(path, "w") as file:
        group(file, **settings)
    return path


def read(path, **options):
    return list(SpiceReader().frames(path, options))


class TestSpice(ReaderConformance):
    reader = SpiceReader()
    text = False

    def sample(self, folder):
        path = write(folder, count=3)
        with h5py.File(path, "a") as file:
            group(file, "water", smiles="[O:1]([H:2])[H:3]", leave_out=("conformations", "dft_total_gradient"))
            file["water/conformations"] = np.zeros((2, 3, 3), dtype=np.float32)
            file["water/conformations"].attrs["units"] = "bohr"
            del file["water/atomic_numbers"]
        return path

    def first_frame(self):
        label = Label(
            energy_uncorrected=-75.5 * HARTREE,
            forces=-np.array(GRADIENT) * (HARTREE / BOHR),  # a gradient points uphill
            properties={"formation_energy": -0.25 * HARTREE},
        )
        return Frame(
            structure=make_structure([8, 1], np.array(PLACES) * BOHR, charge=-1.0),
            label=label,
            external_id="hydroxide-0",
            material="spice/hydroxide",
            location="group hydroxide, conformation 0",
            tags={"subset": "SPICE Ion Pairs", "smiles": HYDROXIDE},
        )


def test_the_formation_energy_can_be_the_energy_and_has_a_method_of_its_own(tmp_path):
    label = read(write(tmp_path), keys={"energy": "formation_energy"})[0].label
    assert label.energy_uncorrected == -0.25 * HARTREE
    assert label.properties == {"dft_total_energy": -75.5 * HARTREE}
    assert "formation" in label.method.name
    assert read(write(tmp_path))[0].label.method is None


def test_without_a_total_energy_the_formation_energy_stays_a_property_and_a_note_says_so(tmp_path):
    notes = []
    label = read(write(tmp_path, leave_out=("dft_total_energy",)), notes=notes)[0].label
    assert label.energy_uncorrected is None
    assert label.properties == {"formation_energy": -0.25 * HARTREE}
    assert len(notes) == 1
    assert "--key energy=formation_energy" in notes[0]


def test_units_of_the_file_are_read_and_an_unknown_or_missing_one_stops(tmp_path):
    nm = write(tmp_path, "nm.hdf5", units={"conformations": "nanometers"})
    assert read(nm)[0].structure.positions[1, 2] == 17.5
    with pytest.raises(IngestError, match=r"/hydroxide/conformations is in 'furlong'.*--unit positions="):
        read(write(tmp_path, units={"conformations": "furlong"}))
    bare = write(tmp_path, units={"dft_total_gradient": None})
    with pytest.raises(IngestError, match="has no attribute units"):
        read(bare)
    assert read(bare, units={"forces": "eV/Å"})[0].label.forces[0, 2] == -0.5
    with pytest.raises(IngestError, match="the file is trusted"):
        read(nm, units={"positions": "bohr"})


def test_conformations_and_smiles_alone_are_structures_without_a_label(tmp_path):
    without = ("atomic_numbers", "dft_total_energy", "formation_energy", "dft_total_gradient")
    first = read(write(tmp_path, leave_out=without))[0]
    assert first.label is None
    assert first.structure.atomic_numbers.tolist() == [8, 1]
    assert first.structure.charge == -1.0


def test_without_a_smiles_the_charge_is_unknown_not_zero(tmp_path):
    frame = read(write(tmp_path, smiles=None))[0]
    assert frame.structure.charge is None
    assert frame.tags == {"subset": "SPICE Ion Pairs"}


def test_long_groups_are_read_in_blocks_without_losing_their_order(tmp_path):
    frames = read(write(tmp_path, count=600))
    assert [frame.label.energy_uncorrected for frame in frames] == [(-75.5 - step) * HARTREE for step in range(600)]
    assert frames[599].external_id == "hydroxide-599"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"leave_out": ("conformations",)}, "no conformations"),
        ({"leave_out": ("atomic_numbers",), "smiles": "CO"}, "does not number every atom"),
        ({"numbers": (8, 8)}, "do not have the elements of the SMILES"),
        ({"numbers": (8, 1, 1), "smiles": None}, "have 2 atoms, the elements are 3"),
    ],
)
def test_a_group_that_makes_no_sense_is_rejected_and_the_next_is_read(tmp_path, settings, reason):
    path = write(tmp_path, **settings)
    with h5py.File(path, "a") as file:
        group(file, "zwitter")
    bad, *good = read(path)
    assert isinstance(bad, Rejected)
    assert reason in bad.reason
    assert bad.key == "hydroxide"
    assert len(good) == 2


def test_a_conformation_with_nan_is_rejected_alone(tmp_path):
    path = write(tmp_path, count=3)
    with h5py.File(path, "a") as file:
        file["hydroxide/conformations"][1, 0, 0] = np.nan
    _, bad, last = read(path)
    assert isinstance(bad, Rejected)
    assert bad.location == "group hydroxide, conformation 1"
    assert last.external_id == "hydroxide-2"


def test_another_key_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(ConfigError, match="energy=dft_total_energy"):
        read(write(tmp_path), keys={"energy": "total_energy"})


@pytest.mark.parametrize(
    ("smiles", "charge", "elements"),
    [
        ("[Br-:1].[Br-:2]", -2, [35, 35]),
        ("[Ca+2:1]", 2, [20]),
        ("[Ca++:2].[Cl-:1]", 1, [17, 20]),
        ("[NH4+]", 1, None),
        ("C[N+](C)(C)C", 1, None),
        ("[C@@H:1]([O--:2])[nH:3]", -2, [6, 8, 7]),
        ("[13C-3:1]#[N+:2]", -2, [6, 7]),
        ("CC(=O)[O-]", -1, None),
        ("[H:2][O:1][H:3]", 0, [8, 1, 1]),
        ("[Si:1]([H:2])[Cl:3]", 0, [14, 1, 17]),
    ],
)
def test_formal_charges_and_elements_of_smiles(smiles, charge, elements):
    assert formal_charge(smiles) == charge
    assert numbered_elements(smiles) == elements


def test_the_dipeptides_read_as_h5py_reads_them(shared_data):
    path = shared_data / "derived-containers" / "spice_layout_dipeptides.hdf5"
    frames = read(path, keys={"energy": "formation_energy"})
    assert len(frames) == 550
    assert {frame.tags["subset"] for frame in frames} == {"SPICE Dipeptides (dipolar selection)"}
    with h5py.File(path) as file:
        raw = file["dipeptide-003"]
        frame = frames[3 * 50 + 7]
        assert frame.external_id == "dipeptide-003-7"
        assert frame.label.energy_uncorrected == raw["formation_energy"][7] * HARTREE
        forces = -raw["dft_total_gradient"][7].astype(float) * (HARTREE / BOHR)
        np.testing.assert_allclose(frame.label.forces, forces, rtol=1e-14)


def test_forces_of_stretched_bonds_pull_them_together(shared_data):
    """The sign, by physics: along C-H bonds of many lengths, force and length are anticorrelated."""
    frames = read(shared_data / "derived-containers" / "spice_layout_dipeptides.hdf5")
    lengths, pulls = [], []
    for frame in frames[::7]:
        numbers, places = frame.structure.atomic_numbers, frame.structure.positions
        for hydrogen in np.flatnonzero(numbers == 1):
            apart = places[hydrogen] - places[numbers == 6]
            near = np.linalg.norm(apart, axis=1).argmin()
            length = np.linalg.norm(apart[near])
            if length < 1.3:
                lengths.append(length)
                pulls.append(frame.label.forces[hydrogen] @ apart[near] / length)
    assert np.corrcoef(lengths, pulls)[0, 1] < -0.9


def test_the_input_layout_of_ions_gives_charged_structures_in_angstrom(shared_data):
    frames = read(shared_data / "spice" / "ions.hdf5")
    assert len(frames) == 1428
    assert frames[0].structure.charge == -2.0
    assert all(frame.label is None for frame in frames)
    apart = [np.linalg.norm(np.diff(frame.structure.positions, axis=0)) for frame in frames[:51]]
    assert 1.5 < min(apart) < max(apart) < 20.0
