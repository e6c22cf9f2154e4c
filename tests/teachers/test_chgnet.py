"""CHGNet as it ships with its package, against the package's own predictions and against finite differences."""

import warnings

import numpy as np
import pytest

from mlipdb.errors import LabelError
from mlipdb.labelling.teacher import LabelRequest, TeacherOptions
from mlipdb.structures import make_structure
from mlipdb.testing.teachers import TeacherConformance, crystal, molecule

torch = pytest.importorskip("torch")
pytest.importorskip("chgnet")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of the package's own imports
    from chgnet.model import CHGNet
    from pymatgen.core import Structure

    from mlipdb.teachers.chgnet import SHIPPED, ChgnetTeacher, shipped_file

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the package
NO_ROWS = np.zeros(0, np.int32)
PERIODIC = (True, True, True)


def load(name="chgnet", **options):
    return ChgnetTeacher.load(name, TeacherOptions(device="cpu", **options))


def ask(teacher, *structures, rows=NO_ROWS):
    return teacher.label(structures, LabelRequest(base=True, hessian_row_numbers=[rows] * len(structures)))


def rock_salt(numbers, length):
    half = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    return make_structure(np.repeat(numbers, 4), 0.5 * length * half, cell=length * np.eye(3), pbc=PERIODIC)


@pytest.fixture(scope="module")
def double():
    return load(dtype="float64")


class TestChgnet(TeacherConformance):
    step = 1e-5  # short, because CHGNet's curvatures change over 1e-3 Å where atoms are almost in line
    batch_tolerance = 1e-9
    force_tolerance = 1e-6
    stress_tolerance = 1e-7
    hessian_tolerance = 1e-3

    @pytest.fixture(autouse=True)
    def keep(self, double):
        self.kept = double

    def teacher(self):
        return self.kept


@pytest.mark.parametrize("name", list(SHIPPED))
def test_labels_are_those_of_the_package(name):
    """chgnet's own graph, batch and units: eV per atom and GPa; float32 of both leaves 1e-4."""
    structures = [crystal(), rock_salt((12, 8), 4.2)]
    own = CHGNet.load(model_name=name.removeprefix("chgnet-"), use_device="cpu", verbose=False)
    for structure, label in zip(structures, ask(load(name), *structures), strict=True):
        theirs = own.predict_structure(
            Structure(structure.cell, structure.atomic_numbers, structure.positions, coords_are_cartesian=True),
            return_site_energies=True,
        )
        assert label.first_energy[1] == pytest.approx(len(structure) * float(theirs["e"]), abs=1e-4)
        assert label.atomic_energies == pytest.approx(theirs["site_energies"], abs=1e-4)
        assert label.forces == pytest.approx(theirs["f"], abs=1e-4)
        assert label.stress == pytest.approx(theirs["s"] / 160.21766208, abs=1e-5)
        assert label.magmoms == pytest.approx(theirs["m"], abs=1e-4)


def test_energies_are_of_the_kind_that_the_weights_were_trained_on():
    """Those of MPtrj are MP2020-corrected, which is another quantity than what a code gives."""
    corrected, plain = load(), load("chgnet-r2scan")
    assert (ask(corrected, crystal())[0].first_energy or [None])[0] == corrected.info.energy == "energy_corrected"
    assert ask(plain, crystal())[0].energy_corrected is None
    assert corrected.info.method().energy_kind == "energy_corrected"
    assert plain.info.method().energy_kind == "energy_uncorrected"


def test_float32_rows_are_those_of_float64_to_one_part_in_a_thousand(double):
    rows = np.array([0, 4], np.int32)
    exact, rounded = (ask(teacher, molecule(), rows=rows)[0] for teacher in (double, load()))
    assert rounded.first_energy[1] == pytest.approx(exact.first_energy[1], abs=1e-5)
    assert rounded.forces == pytest.approx(exact.forces, abs=1e-4)
    assert rounded.hessian_rows == pytest.approx(exact.hessian_rows, abs=1e-3 * np.abs(exact.hessian_rows).max())


def test_a_structure_without_angles_gets_the_same_label_beside_one_with_angles():
    """The old weights have an offset in the layers that are left out when a whole batch has no angle."""
    pair = make_structure([1, 1], [[0.0, 0.0, 0.0], [0.9, 0.0, 0.0]])
    for name in SHIPPED:
        teacher = load(name, dtype="float64")
        alone, (together, _) = ask(teacher, pair)[0], ask(teacher, pair, molecule())
        assert together.first_energy[1] == pytest.approx(alone.first_energy[1], abs=1e-9), name
        assert together.forces == pytest.approx(alone.forces, abs=1e-9), name


def test_atoms_in_line_have_other_rows_by_a_step_than_by_the_second_derivative(double):
    """CHGNet's energy has a kink, rounded off over 1e-3 Å, where three atoms stand in line."""
    row = np.array([0], np.int32)
    salt = rock_salt((12, 8), 4.2)
    second = ask(double, salt, rows=row)[0].hessian_rows[0, 0, 0]
    fine, coarse = (
        ask(load(dtype="float64", step=step), salt, rows=row)[0].hessian_rows[0, 0, 0] for step in (1e-5, 0.01)
    )
    assert fine == pytest.approx(second, rel=1e-3)
    assert coarse > 1.5 * second


def test_a_step_is_part_of_the_method():
    assert load().info.method() != load(step=0.01).info.method()
    assert load(step=0.01).info.method().settings["step"] == 0.01


def test_a_shipped_file_given_by_path_is_the_same_teacher():
    assert load(weights=shipped_file("chgnet-0.2.0")).info == load("chgnet-0.2.0").info
    assert load().info == load("chgnet-0.3.0").info


def test_a_checkpoint_of_your_own_is_another_teacher(tmp_path):
    state = torch.load(shipped_file("chgnet-0.3.0"), map_location="cpu", weights_only=True)
    torch.save({"model": state["model"], "by": "me"}, tmp_path / "mine.pth.tar")
    mine = load(weights=tmp_path / "mine.pth.tar")
    assert mine.info.name == "chgnet"
    assert mine.info.functional is None
    assert mine.info.weights_sha256 != load().info.weights_sha256
    expected = ask(load(), crystal())[0].first_energy[1]
    assert ask(mine, crystal())[0].first_energy[1] == pytest.approx(expected, abs=1e-6)


def test_a_file_that_runs_code_needs_trust(tmp_path):
    """A whole module is pickled with the names of its classes, any class."""
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "module.pth.tar")
    with pytest.raises(LabelError, match="--trust-weights"):
        load(weights=tmp_path / "module.pth.tar")


def test_an_isolated_atom_is_an_error_that_says_so():
    apart = make_structure([8, 8, 8], [[0.0, 0.0, 0.0], [1.2, 0.0, 0.0], [50.0, 0.0, 0.0]])
    with pytest.raises(LabelError, match=r"atoms \[2\] have no neighbour within 6.0 Å"):
        ask(load(), apart)


def test_missing_weights_name_the_path(tmp_path):
    with pytest.raises(LabelError, match="nowhere"):
        load(weights=tmp_path / "nowhere.pth.tar")
