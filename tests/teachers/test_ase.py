import json
import sys

import ase
import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from mlipdb.errors import ConfigError, LabelError, MissingExtraError
from mlipdb.labelling.load import load_teacher
from mlipdb.labelling.teacher import LabelRequest, TeacherOptions
from mlipdb.structures import make_structure
from mlipdb.testing.teachers import TeacherConformance, crystal, molecule, slab

EMT_NAME, LJ_NAME = "ase:ase.calculators.emt.EMT", "ase:ase.calculators.lj.LennardJones"
NO_ROWS = np.zeros(0, np.int32)

# A calculator of the user's own: a spring from each atom to the origin, an energy that is not the free energy, atomic
# energies that do not add up, and a memory that is too small for five atoms.
SPRING = """
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes


class Spring(Calculator):
    implemented_properties = ["energy", "free_energy", "energies", "forces"]

    def __init__(self, stiffness, weights=None):
        super().__init__()
        self.stiffness = float(stiffness if weights is None else Path(weights).read_text())

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if len(atoms) == 5:
            raise MemoryError("five atoms")
        if len(atoms) == 4:
            raise RuntimeError("no convergence in 60 steps")
        places = atoms.positions
        energy = 0.5 * self.stiffness * (places**2).sum() + 10.0 * atoms.info.get("charge", 0)
        self.results = {
            "energy": energy,
            "free_energy": energy - 0.25,
            "energies": np.zeros(len(atoms)),
            "forces": -self.stiffness * places,
        }


class Table:
    pass
"""


@pytest.fixture(scope="module")
def springs(tmp_path_factory):
    """The name of a module of the user's own, importable as PYTHONPATH would make it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "springs.py").write_text(SPRING)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "springs"
        sys.modules.pop("springs", None)


def load(name, step=None, **settings):
    return load_teacher(name, TeacherOptions(step=step, settings={key: str(value) for key, value in settings.items()}))


def base(teacher, structure):
    return teacher.label([structure], LabelRequest(base=True, hessian_row_numbers=[NO_ROWS]))[0]


class TestLennardJones(TeacherConformance):
    """Shifted forces vanish at the cutoff, and the structures have no pair near it."""

    kept = None
    force_tolerance = 1e-5
    stress_tolerance = 1e-6
    hessian_tolerance = 5e-3
    foreign = None  # it covers everything

    def teacher(self):
        self.kept = self.kept or load(LJ_NAME, step=1e-3, sigma=0.9, epsilon=0.1, rc=4, smooth="true")
        return self.kept


class TestEmt(TeacherConformance):
    """EMT covers H, C, N, O and a few metals."""

    kept = None
    step = 1e-3
    force_tolerance = 1e-3
    stress_tolerance = 1e-4
    hessian_tolerance = 1e-2
    foreign = None

    def structures(self):
        cell = [[2.6, 0.2, 0.0], [0.0, 2.7, 0.4], [0.3, 0.0, 3.9]]
        metal = make_structure([29, 79], [[0.05, 0.1, -0.1], [1.3, 1.3, 1.9]], cell=cell, pbc=(True, True, True))
        return [metal, molecule()]

    def teacher(self):
        self.kept = self.kept or load(EMT_NAME, step=1e-3)
        return self.kept


def test_labels_are_what_ase_gives():
    structure = TestEmt().structures()[0]
    label = base(load(EMT_NAME), structure)
    atoms = ase.Atoms(structure.atomic_numbers, structure.positions, cell=structure.cell, pbc=True, calculator=EMT())
    assert label.energy_uncorrected == atoms.get_potential_energy()
    assert label.forces.tolist() == atoms.get_forces().tolist()
    assert label.stress.tolist() == atoms.get_stress(voigt=False).tolist()
    assert label.atomic_energies.tolist() == atoms.get_potential_energies().tolist()
    assert label.atomic_energies_include_e0
    assert label.free_energy is None


def test_settings_are_the_constructor_s_arguments():
    pair = make_structure([18, 18], [[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    atoms = ase.Atoms([18, 18], pair.positions, calculator=LennardJones(sigma=2.5, epsilon=0.2, rc=9))
    assert base(load(LJ_NAME, sigma=2.5, epsilon=0.2, rc=9), pair).energy_uncorrected == atoms.get_potential_energy()


def test_the_method_says_class_package_version_settings_and_step():
    method = load(LJ_NAME, sigma=2.5, smooth="true").info.method()
    assert (method.name, method.package) == (LJ_NAME, "ase")
    assert method.settings == {"sigma": 2.5, "smooth": True, "step": 0.01}
    json.dumps(method.settings)


def test_other_settings_are_another_method_and_the_same_ones_are_the_same():
    first, again, other = (load(LJ_NAME, sigma=value).info for value in ("2.5", "2.50", "2.6"))
    assert first == again
    assert first.weights_sha256 != other.weights_sha256


def test_another_step_is_another_method_of_the_same_model():
    first, other = load(LJ_NAME, step=0.01).info, load(LJ_NAME, step=0.002).info
    assert first.weights_sha256 == other.weights_sha256
    assert first.method() != other.method()


def test_the_step_is_the_one_that_the_rows_are_made_with():
    rows = LabelRequest(base=False, hessian_row_numbers=[np.array([0], np.int32)])
    pair = make_structure([18, 18], [[0.0, 0.0, 0.0], [1.1, 0.0, 0.0]])
    coarse, fine = (load(LJ_NAME, step=step).label([pair], rows)[0].hessian_rows for step in (0.05, 0.001))
    exact = 4 * (12 * 13 / 1.1**14 - 6 * 7 / 1.1**8)
    assert fine[0, 0, 0] == pytest.approx(exact, rel=1e-3)
    assert abs(coarse[0, 0, 0] - exact) > 10 * abs(fine[0, 0, 0] - exact)


def test_rows_of_a_spring_are_its_stiffness_with_a_plus(springs):
    rows = np.array([4], np.int32)
    label = load("ase:springs.Spring", stiffness=3).label(
        [molecule()], LabelRequest(base=False, hessian_row_numbers=[rows])
    )[0]
    assert label.energy_uncorrected is None
    expected = np.zeros((1, 3, 3))
    expected[0, 1, 1] = 3.0
    np.testing.assert_allclose(label.hessian_rows, expected, atol=1e-10)


def test_a_free_energy_that_differs_is_kept_and_energies_that_do_not_add_up_are_not(springs):
    label = base(load("ase:springs.Spring", stiffness=3), molecule())
    assert label.free_energy == label.energy_uncorrected - 0.25
    assert label.atomic_energies is None
    assert label.atomic_energies_include_e0 is None
    assert label.stress is None


def test_a_calculator_without_stress_gives_none_for_a_crystal(springs):
    assert base(load("ase:springs.Spring", stiffness=3), crystal()).stress is None


def test_the_charge_reaches_the_calculator_also_after_the_same_positions_without(springs):
    teacher = load("ase:springs.Spring", stiffness=3)
    neutral = make_structure([8, 1], [[0.0, 0.0, 0.0], [0.9, 0.0, 0.0]])
    ion = make_structure([8, 1], neutral.positions, charge=-1.0)
    energies = [base(teacher, structure).energy_uncorrected for structure in (neutral, ion, neutral)]
    assert energies[1] == energies[0] - 10.0
    assert energies[2] == energies[0]


def test_a_file_among_the_settings_counts_by_its_content(springs, tmp_path):
    for name, text in {"a": "2.0", "b": "2.0", "c": "4.0"}.items():
        (tmp_path / name).write_text(text)
    first, copy, other = (load("ase:springs.Spring", stiffness=1, weights=tmp_path / name) for name in "abc")
    assert first.info == copy.info
    assert first.info.weights_sha256 != other.info.weights_sha256
    assert base(other, molecule()).forces.tolist() == (2 * base(first, molecule()).forces).tolist()


def test_a_module_without_a_package_has_the_hash_of_its_source_for_a_version(springs):
    assert load("ase:springs.Spring", stiffness=1).info.package_version.startswith("source ")


def test_a_failure_says_what_the_calculator_said(springs):
    four = make_structure([1] * 4, np.eye(4, 3))
    with pytest.raises(LabelError, match=r"ase:springs\.Spring failed: RuntimeError: no convergence in 60 steps"):
        base(load("ase:springs.Spring", stiffness=1), four)
    with pytest.raises(LabelError, match="No EMT-potential for Si"):
        base(load(EMT_NAME), slab())


def test_too_little_memory_is_no_failure_of_the_structure(springs):
    with pytest.raises(MemoryError):
        base(load("ase:springs.Spring", stiffness=1), make_structure([1] * 5, np.eye(5, 3)))


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("ase", ConfigError, "give ase:module.Class"),
        ("ase:EMT", ConfigError, "give ase:module.Class"),
        ("ase:ase.calculators.emt.EMTT", ConfigError, "does not exist. Did you mean 'EMT'"),
        ("ase:springs.Table", ConfigError, "is no ASE calculator"),
        ("ase:no_such_package.Calculator", MissingExtraError, "needs the module 'no_such_package'"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_to_give(springs, name, error, says):
    with pytest.raises(error) as caught:
        load(name)
    assert says in str(caught.value)


def test_an_argument_that_the_calculator_does_not_take_is_named(springs):
    with pytest.raises(ConfigError, match="stifness"):
        load("ase:springs.Spring", stifness=1)


def test_options_with_other_names_in_the_calculator_are_not_ignored(tmp_path):
    for options in (TeacherOptions(weights=tmp_path / "w"), TeacherOptions(device="cuda"), TeacherOptions(dtype="f")):
        with pytest.raises(ConfigError, match="--set NAME="):
            load_teacher(EMT_NAME, options)
