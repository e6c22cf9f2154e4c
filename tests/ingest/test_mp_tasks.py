import json

import numpy as np
import pytest

from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.mp_tasks import MpTasksReader, plain_task_id
from mlipdb.ingest.readers.mptrj import MptrjReader
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure
from mlipdb.testing.readers import ReaderConformance

STRESS = [[16.0, 1.0, 0.0], [1.0, -8.0, 0.0], [0.0, 0.0, 4.0]]


def step(number=0, *, electronic=3, **changes):
    sites = [
        {"species": [{"element": "Mn", "occu": 1}], "abc": [0, 0, 0], "xyz": [0.0, 0.0, 0.0]},
        {"species": [{"element": "O", "occu": 1}], "abc": [0.5] * 3, "xyz": [2.0 + number / 8, 2.0, 2.0]},
    ]
    energy = -16.0 - number
    return {
        "structure": {"lattice": {"matrix": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]]}, "sites": sites},
        "e_fr_energy": energy,
        "e_wo_entrp": energy - 0.0625,
        "e_0_energy": 0.03125,  # the entropy term, as old documents have it
        "forces": [[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]],
        "stress": STRESS,
        "electronic_steps": [{"e_fr_energy": energy, "e_0_energy": energy - 0.0625}] * electronic,
    } | changes


def calculation(*steps, incar=None, parameters=None, **changes):
    return {
        "run_type": "GGA+U",
        "input": {
            "incar": {"LDAU": True, "LDAUU": [3.9, 0], "GGA": None, **(incar or {})},
            "parameters": {"NELM": 5, "GGA": "--", "ICHARG": 1, "PSTRESS": 0.0, **(parameters or {})},
        },
        "output": {
            "ionic_steps": list(steps),
            "bandgap": 1.5,
            "outcar": {"magnetization": [{"tot": 4.5}, {"tot": 0.0}]},
        },
    } | changes


def document(*calculations, task_id="mp-149", **fields):
    return {"task_id": task_id, "dir_name": "launcher", "calcs_reversed": list(calculations), **fields}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def read(path, **options):
    return list(MpTasksReader().frames(path, options))


class TestMpTasks(ReaderConformance):
    reader = MpTasksReader()

    def sample(self, folder):
        documents = [document(calculation(step(0), step(1)), task_id=f"mp-{number}") for number in (149, 150, 151)]
        return write(folder / "tasks.json", documents)

    def first_frame(self):
        label = Label(
            energy_uncorrected=-16.0,
            free_energy=-16.0,
            energy_zero=-16.0625,
            forces=np.array([[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]]),
            stress=np.array(STRESS) * (-0.1 / 160.2176634),
            method=Method(kind="dft", name="PBE+U/VASP", code="VASP", functional="PBE+U"),
        )
        structure = make_structure([25, 8], [[0, 0, 0], [2, 2, 2]], cell=np.eye(3) * 4, pbc=(True,) * 3)
        return Frame(structure=structure, label=label, external_id="mp-149-0-0", material="mp-149", location="")


def test_gap_and_moments_belong_to_the_last_step_only(tmp_path):
    first, last = read(write(tmp_path / "t.json", document(calculation(step(0), step(1)))))
    assert (first.label.band_gap, first.label.magmoms) == (None, None)
    assert last.label.band_gap == 1.5
    assert last.label.magmoms.tolist() == [4.5, 0.0]


def test_documents_alone_and_one_a_line_are_read_like_a_list(tmp_path):
    one, two = (document(calculation(step(k)), task_id=f"mp-{k}") for k in (1, 2))
    (tmp_path / "t.jsonl").write_text(json.dumps(one) + "\n" + json.dumps(two) + "\n")
    assert [frame.external_id for frame in read(tmp_path / "t.jsonl")] == ["mp-1-0-0", "mp-2-0-0"]


def test_an_alphabetic_id_is_the_number_that_mptrj_has_and_stays_a_tag(tmp_path):
    (frame,) = read(write(tmp_path / "t.json", document(calculation(step(0)), task_id="mp-ft")))
    assert frame.external_id == "mp-149-0-0"
    assert frame.tags == {"task_id": "mp-ft"}
    assert [plain_task_id(name) for name in ("mp-149", "mvc-12", "mp-b", "x")] == ["mp-149", "mvc-12", "mp-1", "x"]


def test_the_material_is_the_documents_where_it_names_one(tmp_path):
    content = [document(calculation(step(k)), task_id=f"mp-{k}", material_id="mp-7") for k in (1, 2)]
    assert {frame.material for frame in read(write(tmp_path / "t.json", content))} == {"mp-7"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"electronic": 5}, "5 electronic steps of NELM = 5"),
        ({"electronic_steps": None}, "may be unconverged"),
        ({"electronic_steps": None, "num_electronic_steps": 5}, "not converged"),
        ({"forces": None}, "forces is missing"),
        ({"forces": [[0, 0, 0]]}, "forces has shape"),
        ({"e_fr_energy": None}, "expected a number"),
        ({"structure": None}, "pymatgen structure"),
    ],
)
def test_a_step_that_cannot_be_trusted_is_quarantined_and_the_next_is_read(tmp_path, changes, reason):
    bad, good = read(write(tmp_path / "t.json", document(calculation(step(0, **changes), step(1)))))
    assert isinstance(bad, Rejected)
    assert reason in bad.reason
    assert bad.key == "mp-149-0-0"
    assert isinstance(good, Frame)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (calculation(step(0), incar={"ICHARG": 11}), "self-consistent"),
        (calculation(step(0), parameters={"LEPSILON": True}), "linear-response"),
        (calculation(step(0), task_type="NSCF Line"), "NSCF Line"),
        (calculation(), "no ionic steps"),
        ({"run_type": "GGA"}, "emmet's layout"),
    ],
)
def test_calculations_that_are_no_ground_state_are_quarantined_once(tmp_path, bad, reason):
    items = read(write(tmp_path / "t.json", document(bad, calculation(step(1)))))
    assert [type(item) for item in items] == [Rejected, Frame]
    assert reason in items[0].reason
    assert items[1].external_id == "mp-149-1-0"


def test_a_number_of_electronic_steps_is_enough_but_gives_no_energy_without_smearing(tmp_path):
    counted = step(0, electronic_steps=None, num_electronic_steps=3)
    (frame,) = read(write(tmp_path / "t.json", document(calculation(counted))))
    assert (frame.label.free_energy, frame.label.energy_zero) == (-16.0, None)


@pytest.mark.parametrize(
    ("changes", "functional"),
    [
        ({"incar": {"LDAU": False}}, "PBE"),
        ({"incar": {"METAGGA": "R2SCAN", "LDAU": False}}, "r2SCAN"),
        ({"incar": {"GGA": "Ps", "LDAU": None}}, "PBEsol"),
        ({"incar": {"GGA": "??", "LDAU": None}, "run_type": "R2SCAN"}, "r2SCAN"),
    ],
)
def test_the_settings_name_the_functional_and_else_run_type(tmp_path, changes, functional):
    (frame,) = read(write(tmp_path / "t.json", document(calculation(step(0), **changes))))
    assert frame.label.method.functional == functional


def test_something_else_in_the_list_is_quarantined(tmp_path):
    items = read(write(tmp_path / "t.json", [{"a": 1}, 3, document(calculation(step(0)))]))
    assert [type(item) for item in items] == [Rejected, Rejected, Frame]


def test_real_documents_give_the_frames_of_mptrj(shared_data):
    files = sorted((shared_data / "emmet-mp-tasks/raw").glob("*.json.gz"))
    ours = {frame.external_id: frame for file in files for frame in read(file)}
    theirs = {
        frame.external_id: frame
        for frame in MptrjReader().frames(shared_data / "derived-containers/MPtrj_2022.9_sample.json.gz", {})
    }
    assert len(ours) == 175
    assert set(ours) <= set(theirs)
    for name, frame in ours.items():
        other = theirs[name]
        np.testing.assert_allclose(frame.structure.positions, other.structure.positions, atol=1e-14)
        assert frame.structure.cell.tolist() == other.structure.cell.tolist()
        assert frame.label.energy_uncorrected == other.label.energy_uncorrected
        assert frame.label.forces.tolist() == other.label.forces.tolist()
        assert frame.label.stress.tolist() == other.label.stress.tolist()
