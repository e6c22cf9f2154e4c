"""matgl's TensorNet and M3GNet: small ones made here, and published ones against the package's own calculator."""

import re
import warnings
from typing import ClassVar

import numpy as np
import pytest

from mlipdb.errors import DownloadError, LabelError
from mlipdb.labelling.teacher import LabelRequest, TeacherOptions
from mlipdb.structures import make_structure
from mlipdb.testing.teachers import TeacherConformance, crystal, molecule

torch = pytest.importorskip("torch")
pytest.importorskip("matgl")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of the package's own imports
    import ase
    import matgl
    from matgl.apps.pes import Potential
    from matgl.ext.ase import PESCalculator
    from matgl.models import M3GNet, TensorNet

    from mlipdb.teachers.matgl import ENDS, MatglTeacher, _with_ends_swapped

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the package
NO_ROWS = np.zeros(0, np.int32)
ELEMENTS = ("H", "C", "O", "Si")
REFERENCES = [-1.5, -7.25, -5.0, -4.125]
PUBLISHED = "M3GNet-MP-2021.2.8-PES"
OLD = "TensorNet-MatPES-PBE-v2025.1-PES"  # of version 1 of the architecture


def load(folder, name="matgl", **options):
    return MatglTeacher.load(name, TeacherOptions(weights=folder, device="cpu", **options))


def ask(teacher, *structures, rows=NO_ROWS):
    return teacher.label(structures, LabelRequest(base=True, hessian_row_numbers=[rows] * len(structures)))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Folders of a small TensorNet and a small M3GNet with random weights, saved by the package."""
    folder = tmp_path_factory.mktemp("matgl")
    torch.manual_seed(5)
    sizes = {"element_types": ELEMENTS, "units": 8, "nblocks": 1, "is_intensive": False, "cutoff": 4.0}
    models = {"TensorNet": TensorNet(num_rbf=8, **sizes), "M3GNet": M3GNet(threebody_cutoff=3.0, **sizes)}
    for kind, model in models.items():
        Potential(model, data_mean=0.25, data_std=1.5, element_refs=np.array(REFERENCES)).save(folder / kind)
    return folder


class TestTensorNet(TeacherConformance):
    batch_tolerance = 1e-9
    foreign: ClassVar = make_structure([26], [[0.0, 0.0, 0.0]])

    @pytest.fixture(autouse=True)
    def keep(self, small):
        self.kept = load(small / "TensorNet", dtype="float64")

    def teacher(self):
        return self.kept


class TestM3GNet(TeacherConformance):
    batch_tolerance = 1e-8  # its rows are differences over 1e-4 Å, which multiply an energy's rounding
    foreign: ClassVar = make_structure([26], [[0.0, 0.0, 0.0]])

    @pytest.fixture(autouse=True)
    def keep(self, small):
        self.kept = load(small / "M3GNet", dtype="float64", step=1e-4)

    def teacher(self):
        return self.kept


@pytest.mark.parametrize("kind", ["TensorNet", "M3GNet"])
def test_atomic_energies_hold_scale_mean_and_references(small, kind):
    """An atom far from others has scale times one number of its element, its reference and its part of the mean."""
    gas = make_structure([14, 14], [[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]])
    label = ask(load(small / kind, dtype="float64"), gas)[0]
    plain = matgl.load_model(small / kind).double()
    edges = {"edge_index": torch.zeros((2, 0), dtype=torch.long), "pbc_offset": torch.zeros((0, 3))}
    from torch_geometric.data import Data

    graph = Data(num_nodes=2, frac_coords=torch.tensor(gas.positions), node_type=torch.tensor([3, 3]), **edges)
    energy = float(plain(graph, torch.eye(3)[None].double())[0])
    assert label.energy_uncorrected == pytest.approx(energy, abs=1e-6)
    assert label.atomic_energies == pytest.approx([energy / 2] * 2, abs=1e-6)


@pytest.mark.parametrize("kind", ["TensorNet", "M3GNet"])
def test_labels_are_those_of_the_package(small, kind):
    """matgl's own graph and calculator in float32; its stress here in eV/Å³."""
    compare_with_the_package(small / kind, crystal())


def salt(first, second, edge):
    """Rock salt, edge in Å."""
    half = edge / 2
    cell = half * (1 - np.eye(3))
    return make_structure([first, second], [[0.0, 0.0, 0.0], [half] * 3], cell=cell, pbc=(True,) * 3)


def test_tensornet_of_version_1_has_the_energies_of_matgl_of_its_time(shared_data):
    """matgl 2.0.0 with ASE's rock salts; 4.1.2 by itself has -4.5417 and -5.4736 eV."""
    labels = ask(load(shared_data / "matgl-weights" / OLD), salt(12, 8, 4.25), salt(11, 17, 5.69))
    found = [label.energy_uncorrected for label in labels]
    assert found == pytest.approx([-11.736003875732422, -6.7152099609375], abs=1e-4)


def test_m3gnet_of_the_time_of_dgl_is_near_dft(shared_data):
    """The Materials Project has MgO at -11.97 and NaCl at -6.78 eV; matgl 4.1.2 by itself -4.09 and -2.60."""
    labels = ask(load(shared_data / "matgl-weights" / PUBLISHED), salt(12, 8, 4.25), salt(11, 17, 5.69))
    assert [label.energy_uncorrected for label in labels] == pytest.approx([-11.97, -6.78], abs=0.1)


def test_ends_that_change_places_twice_are_where_they_were(small):
    for kind in ENDS:
        arguments, state = (torch.load(small / kind / file, weights_only=True) for file in ("model.pt", "state.pt"))
        sizes = arguments["model"]["init_args"]
        once = _with_ends_swapped(kind, state, sizes)
        changed = [key for key, value in state.items() if not torch.equal(value, once[key])]
        assert changed
        assert all(re.search(ENDS[kind][0], key) for key in changed)
        twice = _with_ends_swapped(kind, once, sizes)
        assert all(torch.equal(value, twice[key]) for key, value in state.items())


def test_a_version_that_is_not_known_is_refused(small, tmp_path):
    arguments, state = (torch.load(small / "TensorNet" / file, weights_only=True) for file in ("model.pt", "state.pt"))
    arguments["model"]["@model_version"] = 7
    torch.save(arguments, tmp_path / "model.pt")
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(LabelError, match="weights of version 7 of TensorNet"):
        load(tmp_path)


def compare_with_the_package(folder, structure):
    calculator = PESCalculator(matgl.load_model(folder), stress_unit="eV/A3")
    atoms = ase.Atoms(structure.atomic_numbers, structure.positions, cell=structure.cell, pbc=True)
    atoms.calc = calculator
    label = ask(load(folder), structure)[0]
    assert label.energy_uncorrected == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert label.energy_uncorrected == pytest.approx(label.atomic_energies.sum(), abs=1e-9)
    assert label.forces == pytest.approx(atoms.get_forces(), abs=1e-4)
    assert label.stress == pytest.approx(atoms.get_stress(voigt=False), abs=1e-5)


def test_rows_are_those_of_the_packages_own_hessian(small):
    structure, rows = crystal(), np.array([4, 0, 3], np.int32)
    potential = matgl.load_model(small / "TensorNet")
    potential.calc_hessian = True
    atoms = ase.Atoms(structure.atomic_numbers, structure.positions, cell=structure.cell, pbc=True)
    calculator = PESCalculator(potential)
    calculator.calculate(atoms, ["energy"], [])
    hessian = np.asarray(calculator.results["hessian"]).reshape(6, 2, 3)
    found = ask(load(small / "TensorNet"), structure, rows=rows)[0].hessian_rows
    assert found == pytest.approx(hessian[rows], abs=1e-4)


def test_m3gnet_has_rows_by_differences_and_says_so(small):
    assert load(small / "M3GNet").info.method().settings == {"step": 0.01}
    assert load(small / "TensorNet").info.method().settings == {}


def test_a_folder_given_by_path_has_the_name_of_the_published_weights(shared_data):
    folder = shared_data / "matgl-weights" / PUBLISHED
    info = load(folder).info
    assert info.name == f"matgl:{PUBLISHED}"
    assert info.functional == "PBE+U"
    assert len(info.atomic_numbers) == 89
    assert load(folder, f"matgl:{PUBLISHED}").info == info


def test_no_class_is_made_that_a_folder_names(small, tmp_path):
    """matgl makes whatever class model.pt names, with the arguments that stand there."""
    arguments = torch.load(small / "TensorNet" / "model.pt", weights_only=True)
    arguments["model"] = {"@module": "pathlib", "@class": "Path", "init_args": {}}
    torch.save(arguments, tmp_path / "model.pt")
    torch.save({}, tmp_path / "state.pt")
    with pytest.raises(LabelError, match="holds a Path; this teacher takes TensorNet, M3GNet"):
        load(tmp_path)


def test_weights_that_lack_an_array_are_refused(small, tmp_path):
    arguments, state = (torch.load(small / "TensorNet" / file, weights_only=True) for file in ("model.pt", "state.pt"))
    del state["model.linear.weight"]
    torch.save(arguments, tmp_path / "model.pt")
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(LabelError, match=r"lacks 1 of the model's arrays, such as linear\.weight"):
        load(tmp_path)


def test_names_without_weights_say_what_to_give(tmp_path):
    with pytest.raises(LabelError, match="--weights FOLDER"):
        MatglTeacher.load("matgl", TeacherOptions())
    with pytest.raises(LabelError, match=r"no model\.pt and no state\.pt"):
        load(tmp_path)
    with pytest.raises(DownloadError, match="give it with --weights"):
        MatglTeacher.load("matgl:TensorNet-MatPES-PBE-v2025.1-PES", TeacherOptions(cache=tmp_path, offline=True))


def test_a_molecule_and_a_single_atom_are_labelled(small):
    for kind in ("TensorNet", "M3GNet"):
        atom, water = ask(load(small / kind), make_structure([8], [[0.0, 0.0, 0.0]]), molecule())
        assert atom.forces == pytest.approx(np.zeros((1, 3)))
        assert np.isfinite(water.energy_uncorrected)
