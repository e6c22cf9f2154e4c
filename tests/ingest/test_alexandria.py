import bz2
import json

import numpy as np
import pytest

from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.alexandria import AlexandriaReader
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure
from mlipdb.testing.readers import ReaderConformance

KBAR = -0.1 / 160.2176634  # one kbar of VASP, positive under compression, in eV/Å³
STRESS = [[16.0, 1.0, 0.0], [1.0, -8.0, 0.0], [0.0, 0.0, 4.0]]


def structure(shift=0.0, **properties):
    sites = [
        {"species": [{"element": "Mg", "occu": 1}], "abc": [0, 0, 0], "xyz": [0.0, 0.0, 0.0]},
        {"species": [{"element": "O", "occu": 1}], "abc": [0.5, 0.5, 0.5], "xyz": [2.0 + shift, 2.0, 2.0]},
    ]
    for place, site in enumerate(sites):
        site["properties"] = {name: values[place] for name, values in properties.items()}
    return {"lattice": {"matrix": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]]}, "charge": 0, "sites": sites}


def step(number=0, **changes):
    forces = [[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]]
    return {"structure": structure(number / 8), "energy": -11.0 - number, "forces": forces, "stress": STRESS} | changes


def calculation(*steps, functional="PBE"):
    return {"kpoints": [4, 4, 4], "PREC": "high", "functional": functional, "steps": list(steps)}


def entry(name="agm1", *, stress=STRESS, **data):
    forces = [[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]]
    data = {"mat_id": name, "stress": stress, "band_gap_ind": 4.5, "e_form": -3.0, "energy_corrected": -11.5} | data
    return {
        "@class": "ComputedStructureEntry",
        "energy": -11.0,
        "data": data,
        "structure": structure(forces=forces, magmom=[0.0, 0.25], charge=[2.0, 6.0]),
    }


def write(path, content):
    data = json.dumps(content).encode()
    path.write_bytes(bz2.compress(data, 1) if path.suffix == ".bz2" else data)  # 1: the smallest blocks, 100 kB
    return path


def read(path, **options):
    return list(AlexandriaReader().frames(path, options))


class TestAlexandriaPaths(ReaderConformance):
    reader = AlexandriaReader()

    def sample(self, folder):
        return write(
            folder / "alex_go_aao_000.json",
            {
                "agm1": [calculation(step(0), step(1)), calculation(step(2))],
                "agm2": [calculation(step(3), functional="PBEsol")],
                "agm3": [calculation(step(4))],
            },
        )

    def first_frame(self):
        label = Label(
            energy_uncorrected=-11.0,
            forces=np.array([[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]]),
            stress=np.array(STRESS) * KBAR,
            method=Method(kind="dft", name="Alexandria PBE/VASP", code="VASP", functional="PBE"),
        )
        return Frame(structure=crystal(), label=label, external_id="agm1-0-0", material="agm1", location="")


class TestAlexandriaEntries(ReaderConformance):
    reader = AlexandriaReader()

    def sample(self, folder):
        return write(folder / "alexandria_000.json", {"entries": [entry(f"agm{number}") for number in range(6)]})

    def first_frame(self):
        label = Label(
            energy_uncorrected=-11.0,
            energy_corrected=-11.5,
            band_gap=4.5,
            forces=np.array([[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]]),
            stress=np.array(STRESS) * KBAR,
            magmoms=np.array([0.0, 0.25]),
            properties={"e_form": -3.0},
        )
        return Frame(structure=crystal(), label=label, external_id="agm0", material="agm0", location="")


def crystal():
    return make_structure([12, 8], [[0, 0, 0], [2, 2, 2]], cell=np.eye(3) * 4.0, pbc=(True,) * 3, charge=0.0)


def test_steps_are_named_by_calculation_and_step_and_other_functionals_say_so(tmp_path):
    frames = read(TestAlexandriaPaths().sample(tmp_path))
    assert [frame.external_id for frame in frames] == [
        "agm1-0-0", "agm1-0-1", "agm1-1-0", "agm2-PBEsol-0-0", "agm3-0-0",
    ]  # fmt: skip
    assert [frame.material for frame in frames] == ["agm1", "agm1", "agm1", "agm2", "agm3"]
    assert frames[3].label.method.functional == "PBEsol"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (step(forces=[[1.0, 2.0, 3.0]]), r"forces has shape \(1, 3\) for 2 atoms"),
        (step(forces=[[1.0, 2.0, 3.0], [1.0]]), "forces is not an array"),
        (step(forces=None), "missing"),
        (step(energy="low"), "expected a number"),
        (step(stress=[1.0, 2.0]), r"stress has shape \(2,\)"),
        (step(structure=None), "expected a pymatgen structure"),
        ({}, "pymatgen structure"),
        (7, "no object"),
    ],
)
def test_a_step_that_makes_no_sense_is_quarantined_and_the_next_is_read(tmp_path, bad, reason):
    items = read(write(tmp_path / "a.json.bz2", {"agm1": [calculation(bad, step(1))]}))
    assert [type(item) for item in items] == [Rejected, Frame]
    assert items[0].key == "agm1-0-0"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(items[0].reason)


def test_a_calculation_without_steps_is_quarantined(tmp_path):
    items = read(write(tmp_path / "a.json", {"agm1": [{"functional": "PBE"}, None], "agm2": {}, "agm3": []}))
    assert [item.reason for item in items] == ["the calculation has no steps"] * 3


def test_an_enthalpy_is_refused_until_the_pressure_is_named(tmp_path):
    pressed = entry(stress=[[500.0, 0, 0], [0, 501.0, 0], [0, 0, 499.0]])
    path = write(tmp_path / "P050.json.bz2", {"entries": [pressed]})
    (refused,) = read(path)
    assert "under 500 kbar" in refused.reason
    assert "--key pstress=" in refused.reason
    (frame,) = read(path, keys={"pstress": "500"})
    work = 500.0 / 1602.176634 * 64.0
    assert frame.label.energy_uncorrected == pytest.approx(-11.0 - work, rel=1e-12)
    assert frame.label.energy_corrected == pytest.approx(-11.5 - work, rel=1e-12)
    (frame,) = read(path, keys={"pstress": "0"})
    assert frame.label.energy_uncorrected == -11.0


@pytest.mark.parametrize("keys", [{"energy": "E"}, {"pstress": "50 GPa"}])
def test_other_keys_are_refused_with_the_one_that_exists(tmp_path, keys):
    with pytest.raises(ConfigError, match="pstress=KBAR"):
        read(write(tmp_path / "a.json", {}), keys=keys)


def test_a_cut_bz2_file_gives_the_records_before_the_cut(tmp_path):
    content = {f"agm{number}": [calculation(*(step(k) for k in range(40)))] for number in range(80)}
    path = write(tmp_path / "a.json.bz2", content)
    path.write_bytes(path.read_bytes()[:-100])
    frames = []
    with pytest.raises(IngestError, match="cut or damaged"):
        frames.extend(AlexandriaReader().frames(path, {}))
    assert len(frames) > 1000


def test_real_entries_have_their_labels_and_the_pressed_ones_are_refused(shared_data):
    frames = read(shared_data / "alexandria-ml-peg/P000.json.bz2")
    assert len(frames) == 9155
    assert all(isinstance(frame, Frame) for frame in frames)
    first = frames[0]
    assert (first.external_id, first.label.energy_uncorrected) == ("agm001000110", -35.56069047)
    assert first.label.stress[0, 0] == pytest.approx(-1.9637328 / 1602.176634, rel=1e-9)
    assert first.label.forces[0].tolist() == [-0.00129285, 0.00382303, -0.00091673]
    pressed = read(shared_data / "alexandria-ml-peg/P050.json.bz2")
    assert all("enthalpy" in item.reason for item in pressed)
    taken = read(shared_data / "alexandria-ml-peg/P050.json.bz2", keys={"pstress": "500"})
    relaxed = {frame.external_id: frame.label.energy_uncorrected / len(frame.structure) for frame in frames}
    above = [frame.label.energy_uncorrected / len(frame.structure) - relaxed[frame.external_id] for frame in taken]
    assert min(above) > 0
    assert np.median(above) < 1.0  # eV/atom above the relaxed crystal; the enthalpies' median is 5
