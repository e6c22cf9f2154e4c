"""fairchem-core's UMA and eSEN: small ones made here from the package's own classes, against its own calculator.

The checkpoints are what the package saves after training, with random weights: no published file is used.
"""

import copy
import importlib
import warnings
from typing import ClassVar

import ase
import numpy as np
import pytest

from mlipdb.errors import ConfigError, DownloadError, LabelError
from mlipdb.labelling.teacher import LabelRequest, TeacherOptions
from mlipdb.structures import make_structure
from mlipdb.testing.teachers import TeacherConformance, crystal, molecule

torch = pytest.importorskip("torch")
pytest.importorskip("fairchem.core")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of the package's own imports
    import hydra
    from fairchem.core.calculate import FAIRChemCalculator
    from fairchem.core.units.mlip_unit import InferenceSettings, load_predict_unit
    from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint

    from mlipdb.teachers.fairchem import FUNCTIONALS, FairchemTeacher

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the package
NO_ROWS = np.zeros(0, np.int32)
REFERENCES = {1: -3.5, 6: -8.25, 8: -6.5, 14: -5.0}
UNSEEN, BEYOND = 3, 26  # a fit leaves rounding for the one; the model has no room for the other
MEAN, RMSD = 0.75, 13.42  # of energies; published means are 0, and ten times the spread makes random forces large
UMA, CORE = "fairchem.core.models.uma", "fairchem.core.modules.normalization"
SIZES = {
    "max_num_elements": 20,
    "sphere_channels": 8,
    "hidden_channels": 8,
    "edge_channels": 8,
    "num_distance_basis": 16,
    "num_layers": 1,
    "lmax": 2,
    "mmax": 2,
    "cutoff": 4.0,
    "otf_graph": True,
    "ff_type": "spectral",
    "chg_spin_emb_type": "rand_emb",
    "direct_forces": False,
    "regress_forces": True,
    "regress_stress": True,
}


def task(dataset, quantity, *, prefix="", references=True, mean=0.0):
    """A task as the package's training configurations write it."""
    values = [-8e-19, *(REFERENCES.get(number, 0.0) for number in range(1, 30))]
    values[UNSEEN], values[BEYOND] = 7.8e-15, -7.9
    elements = {"_target_": "torch.DoubleTensor", "_args_": [values]}
    made = {
        "_target_": "fairchem.core.units.mlip_unit.mlip_unit.Task",
        "name": f"{prefix}{quantity}",
        "property": quantity,
        "level": "atom" if quantity == "forces" else "system",
        "datasets": [dataset],
        "out_spec": {
            "_target_": "fairchem.core.units.mlip_unit.mlip_unit.OutputSpec",
            "dim": [1],
            "dtype": "float32",
        },
        "normalizer": {
            "_target_": f"{CORE}.normalizer.Normalizer",
            "mean": mean if quantity == "energy" else 0.0,
            "rmsd": RMSD,
        },
    }
    if references and quantity == "energy":
        made["element_references"] = {
            "_target_": f"{CORE}.element_references.ElementReferences",
            "element_references": elements,
        }
    return made


def save(path, *, backbone, heads, tasks, **model):
    """An inference checkpoint with random weights, the same every time."""
    config = {
        "_target_": "fairchem.core.models.base.HydraModel",
        "backbone": backbone,
        "heads": heads,
        "pass_through_head_outputs": True,
        **model,
    }
    torch.manual_seed(5)
    network = hydra.utils.instantiate(copy.deepcopy(config))
    average = torch.optim.swa_utils.AveragedModel(network)
    checkpoint = MLIPInferenceCheckpoint(
        model_config=config,
        model_state_dict=network.state_dict(),
        ema_state_dict=average.state_dict(),
        tasks_config=tasks,
    )
    torch.save(checkpoint, path)
    return path


@pytest.fixture(scope="module")
def uma(tmp_path_factory):
    """A mixture of experts with a head for each of two datasets, as UMA is."""
    datasets = {"omat": "omat", "omol": "omol"}
    return save(
        tmp_path_factory.mktemp("uma") / "uma-tiny.pt",
        backbone={
            **SIZES,
            "model": f"{UMA}.escn_moe.eSCNMDMoeBackbone",
            "num_experts": 3,
            "use_composition_embedding": True,
            "dataset_mapping": datasets,
        },
        heads={
            "energyandforcehead": {
                "module": f"{UMA}.escn_moe.DatasetSpecificMoEWrapper",
                "head_cls": f"{UMA}.escn_md.MLP_EFS_Head",
                "head_kwargs": {"wrap_property": False},
                "dataset_mapping": datasets,
            }
        },
        tasks=[task(name, kind, prefix=f"{name}_") for name in datasets for kind in ("energy", "forces", "stress")],
        model_id="UMA-TINY",
    )


def esen_file(path, *, quantities=("energy", "forces", "stress"), **options):
    """One dataset without an embedding of it, energies that forces are derivatives of, as the conserving eSEN is."""
    return save(
        path,
        backbone={**SIZES, "model": f"{UMA}.escn_md.eSCNMDBackbone", "use_dataset_embedding": False},
        heads={"efs_head": {"module": f"{UMA}.escn_md.MLP_EFS_Head"}},
        tasks=[task("omol", kind, mean=MEAN, **options) for kind in quantities],
    )


@pytest.fixture(scope="module")
def esen(tmp_path_factory):
    return esen_file(tmp_path_factory.mktemp("esen") / "esen-tiny.pt")


def load(path, name="fairchem", *, settings=None, **options):
    given = {"weights": path, "trust_weights": True, "device": "cpu", "settings": settings or {}}
    return FairchemTeacher.load(name, TeacherOptions(**{**given, **options}))


def ask(teacher, *structures, rows=NO_ROWS):
    return teacher.label(structures, LabelRequest(base=True, hessian_row_numbers=[rows] * len(structures)))


def calculated(path, dataset, structure, settings="batch", **info):
    """The structure with the package's calculator, which gives stress in Voigt order."""
    atoms = ase.Atoms(
        structure.atomic_numbers, structure.positions, cell=structure.cell, pbc=structure.pbc, info=dict(info)
    )
    atoms.calc = FAIRChemCalculator(load_predict_unit(path, settings, device="cpu"), task_name=dataset)
    return atoms


class TestUma(TeacherConformance):
    batch_tolerance = 1e-9
    hessian_tolerance = 1e-4  # differences over another step
    foreign: ClassVar = make_structure([UNSEEN], [[0.0, 0.0, 0.0]])

    @pytest.fixture(autouse=True)
    def keep(self, uma, request):
        if not hasattr(request.cls, "kept"):
            request.cls.kept = load(uma, dtype="float64", step=1e-3, settings={"task": "omat"})

    def teacher(self):
        return self.kept


class TestEsen(TeacherConformance):
    batch_tolerance = 1e-9
    hessian_tolerance = 1e-4
    foreign: ClassVar = make_structure([BEYOND], [[0.0, 0.0, 0.0]])

    @pytest.fixture(autouse=True)
    def keep(self, esen, request):
        if not hasattr(request.cls, "kept"):
            request.cls.kept = load(esen, dtype="float64", step=1e-3)

    def teacher(self):
        return self.kept


def test_labels_of_a_crystal_are_those_of_the_packages_calculator(uma):
    """In float32; stress in eV/Å³, positive under tension as ASE's is."""
    label = ask(load(uma, settings={"task": "omat"}), crystal())[0]
    atoms = calculated(uma, "omat", crystal())
    assert label.energy_uncorrected == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    assert label.forces == pytest.approx(atoms.get_forces(), abs=1e-5)
    assert label.stress == pytest.approx(atoms.get_stress(voigt=False), abs=1e-6)
    assert np.abs(label.forces).max() > 1e-2
    assert np.abs(label.stress).max() > 1e-2


@pytest.mark.parametrize("state", [{}, {"charge": -1, "spin": 2}, {"charge": 0, "spin": 3}])
@pytest.mark.parametrize("kind", ["uma", "esen"])
def test_charge_and_multiplicity_reach_the_task_that_knows_them(kind, state, request):
    """A molecule that gives none is what the package takes it for, a neutral singlet."""
    path = request.getfixturevalue(kind)
    water = molecule()
    charge = float(state["charge"]) if state else None
    charged = make_structure(water.atomic_numbers, water.positions, charge=charge, spin_multiplicity=state.get("spin"))
    teacher = load(path, settings={"task": "omol"})
    label = ask(teacher, charged)[0]
    atoms = calculated(path, "omol", water, **state)
    assert label.energy_uncorrected == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    assert label.forces == pytest.approx(atoms.get_forces(), abs=1e-5)
    assert label.stress is None
    neutral = ask(teacher, water)[0].energy_uncorrected
    assert (abs(label.energy_uncorrected - neutral) > 1e-3) == bool(state)


def test_a_task_without_charges_refuses_one_and_looks_at_no_multiplicity(uma):
    teacher = load(uma, settings={"task": "omat"})
    ion = make_structure([8, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], charge=-1.0)
    with pytest.raises(LabelError, match="task omat takes neutral structures only, not -1 e"):
        ask(teacher, ion)
    half = make_structure([8, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], charge=0.5)
    with pytest.raises(LabelError, match="whole charges"):
        ask(load(uma, settings={"task": "omol"}), half)
    triplet = make_structure(molecule().atomic_numbers, molecule().positions, charge=0.0, spin_multiplicity=3)
    label, plain = ask(teacher, triplet, molecule())
    assert label.energy_uncorrected == pytest.approx(plain.energy_uncorrected, abs=1e-5)


def test_a_multiplicity_that_the_model_has_no_room_for_is_an_error(esen):
    wild = make_structure(molecule().atomic_numbers, molecule().positions, spin_multiplicity=101)
    with pytest.raises(LabelError, match="Invalid value for spin: 101"):
        ask(load(esen), wild)


def test_atomic_energies_hold_the_element_references_and_their_part_of_the_mean(esen, tmp_path):
    """The same weights without references differ by these; far atoms share nothing but the mean over the structure."""
    plain = load(esen_file(tmp_path / "plain.pt", references=False), dtype="float64")
    label, bare = ask(load(esen, dtype="float64"), molecule())[0], ask(plain, molecule())[0]
    assert label.atomic_energies - bare.atomic_energies == pytest.approx([-6.5, -3.5, -3.5], abs=1e-12)
    assert label.energy_uncorrected == pytest.approx(label.atomic_energies.sum(), abs=1e-10)
    place = [[0.0, 0.0, 0.0], [50.0, 0.0, 0.0], [0.0, 50.0, 0.0]]
    pair, triple = ask(plain, make_structure([8, 8], place[:2]), make_structure([8, 8, 8], place))
    assert pair.atomic_energies - MEAN / 2 == pytest.approx([triple.atomic_energies[0] - MEAN / 3] * 2, abs=1e-9)


def test_atomic_energies_of_a_float32_model_sum_to_its_energy_in_float64(esen):
    """The package sums them and adds the references in float64."""
    label = ask(load(esen), molecule())[0]
    assert label.energy_uncorrected == pytest.approx(label.atomic_energies.sum(), abs=1e-10)


def test_rows_are_those_of_the_packages_own_hessian(uma):
    structure, rows = molecule(), np.array([7, 0, 3], np.int32)
    settings = InferenceSettings(
        base_precision_dtype="float64", predict_untrained_hessian={"omat"}, activation_checkpointing=False
    )
    atoms = calculated(uma, "omat", structure, settings)
    hessian = np.asarray(atoms.calc.get_property("hessian", atoms)).reshape(9, 3, 3)
    fine, coarse = (load(uma, dtype="float64", step=step, settings={"task": "omat"}) for step in (1e-3, None))
    found = ask(fine, structure, rows=rows)[0].hessian_rows
    assert found == pytest.approx(hessian[rows], abs=1e-5)
    assert ask(coarse, structure, rows=rows)[0].hessian_rows == pytest.approx(hessian[rows], abs=1e-3)
    assert np.abs(found).max() > 1e-2
    assert fine.info.method().settings == {"task": "omat", "step": 1e-3}
    assert coarse.info.method().settings == {"task": "omat", "step": 0.01}


def test_a_stress_that_was_not_trained_is_the_derivative_without_the_energies_mean(esen, tmp_path):
    """The package scales it with the energies' normalizer, and adds their mean to each component."""
    path = esen_file(tmp_path / "untrained.pt", quantities=("energy", "forces"))
    label, trained = ask(load(path), crystal())[0], ask(load(esen), crystal())[0]
    assert label.stress == pytest.approx(trained.stress, abs=1e-6)
    stress = calculated(path, "omol", crystal()).get_stress(voigt=False)
    assert label.stress == pytest.approx(stress - MEAN, abs=1e-6)


def test_direct_forces_are_taken_as_they_are_and_there_is_no_stress(tmp_path):
    """Heads of their own for energy and forces, as the direct eSEN has."""
    path = save(
        tmp_path / "direct.pt",
        backbone={
            **SIZES,
            "model": f"{UMA}.escn_md.eSCNMDBackbone",
            "use_dataset_embedding": False,
            "direct_forces": True,
            "regress_stress": False,
        },
        heads={
            "energy": {"module": f"{UMA}.escn_md.MLP_Energy_Head"},
            "forces": {"module": f"{UMA}.escn_md.Linear_Force_Head"},
        },
        tasks=[task("omol", "energy"), task("omol", "forces")],
        pass_through_head_outputs=False,
    )
    label, alone = ask(load(path), crystal(), molecule())
    assert label.stress is None
    assert label.atomic_energies.sum() == pytest.approx(label.energy_uncorrected, abs=1e-10)
    atoms = calculated(path, "omol", molecule())
    assert alone.energy_uncorrected == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    assert alone.forces == pytest.approx(atoms.get_forces(), abs=1e-5)


def test_a_model_that_sums_its_atoms_inside_has_no_atomic_energies(tmp_path):
    """AllScAIP, whose head gives the sum only."""
    importlib.import_module("fairchem.core.models.allscaip.AllScAIP")  # registers the names below
    path = save(
        tmp_path / "allscaip.pt",
        backbone={
            "model": "AllScAIP_backbone",
            "regress_forces": True,
            "direct_forces": False,
            "regress_stress": True,
            "use_compile": False,
            "use_padding": False,
            "hidden_size": 16,
            "num_layers": 1,
            "activation": "gelu",
            "max_num_elements": 20,
            "max_atoms": 20,
            "max_batch_size": 8,
            "max_radius": 4.0,
            "knn_k": 20,
            "atten_name": "math",
            "atten_num_heads": 2,
            "attn_num_freq": 8,
            "freequency_list": [4, 4],
            "dataset_list": ["omol"],
        },
        heads={
            "efs": {
                "module": f"{UMA}.escn_moe.DatasetSpecificSingleHeadWrapper",
                "dataset_names": ["omol"],
                "head_cls": "AllScAIP_grad_energy_force_stress_head",
                "head_kwargs": {"wrap_property": False},
            }
        },
        tasks=[task("omol", kind, prefix="omol_") for kind in ("energy", "forces", "stress")],
    )
    crystalline, water = ask(load(path), crystal(), molecule())
    assert water.atomic_energies is None
    assert water.atomic_energies_include_e0 is None
    for label, structure in ((crystalline, crystal()), (water, molecule())):
        atoms = calculated(path, "omol", structure)
        assert label.energy_uncorrected == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        assert label.forces == pytest.approx(atoms.get_forces(), abs=1e-4)


def test_isolated_atoms_have_their_published_energies_whatever_else_is_in_the_batch(esen):
    """From a list that comes with published weights; the package takes such an atom only alone in its batch."""
    known = load(esen)
    unit = load_predict_unit(
        esen, InferenceSettings(), device="cpu", atom_refs={"omol_elem_refs": {8: {0: -2041.5, -1: -2043.0}}}
    )
    teacher = FairchemTeacher(unit, known.info, edges=1000)
    oxygen = make_structure([8], [[0.0, 0.0, 0.0]])
    ion = make_structure([8], [[0.0, 0.0, 0.0]], charge=-1.0)
    atom, water, charged = ask(teacher, oxygen, molecule(), ion)
    assert atom.energy_uncorrected == atom.atomic_energies.sum() == -2041.5
    assert atom.forces.tolist() == [[0.0, 0.0, 0.0]]
    assert charged.energy_uncorrected == -2043.0
    assert water.energy_uncorrected == pytest.approx(ask(known, molecule())[0].energy_uncorrected, abs=1e-5)
    with pytest.raises(LabelError, match=r"no energy of an isolated atom of O: .* no atom_refs available"):
        ask(known, oxygen)


def test_elements_are_those_with_a_reference_that_is_no_rounding_and_with_room_in_the_model(uma, esen, tmp_path):
    assert load(uma, settings={"task": "omol"}).info.atomic_numbers == frozenset(REFERENCES)
    plain = esen_file(tmp_path / "plain.pt", references=False)
    assert load(plain).info.atomic_numbers == frozenset(range(1, 20))
    with pytest.raises(LabelError, match="does not cover Li"):
        ask(load(esen), make_structure([8, UNSEEN], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.6]]))


def test_one_task_is_chosen_and_several_must_be_named(uma, esen):
    assert load(esen).info.settings["task"] == "omol"
    with pytest.raises(ConfigError, match=r"needs --set task=NAME\. Tasks: omat, omol"):
        load(uma)
    with pytest.raises(ConfigError, match=r"not omatt\. Did you mean 'omat'\? Tasks: omat, omol"):
        load(uma, settings={"task": "omatt"})
    with pytest.raises(ConfigError, match="no setting 'head'"):
        load(uma, settings={"head": "omat"})


def test_both_spellings_of_a_published_name_are_one_teacher(esen):
    """The weights are given, so that none are fetched."""
    info = load(esen, "esen-sm-conserving-all-omol").info
    assert info.name == "fairchem:esen-sm-conserving-all-omol"
    assert info.functional == FUNCTIONALS[info.settings["task"]]
    assert load(esen, "fairchem:esen-sm-conserving-all-omol").info == info
    assert load(esen, "esen").info.name == "fairchem:esen-tiny"


def test_a_name_without_weights_says_which_names_there_are(esen):
    for name in ("fairchem", "uma", "fairchem:uma-s-1p"):
        with pytest.raises(ConfigError, match=r"names no checkpoint .*uma-s-1p1, .*esen-sm-conserving-all-omol"):
            FairchemTeacher.load(name, TeacherOptions())
    for name in ("uma-s-1p1", "fairchem:uma-s-1p1"):
        with pytest.raises(DownloadError, match=r"weights of uma-s-1p1 are fetched by fairchem-core; offline"):
            FairchemTeacher.load(name, TeacherOptions(offline=True, trust_weights=True))
        with pytest.raises(LabelError, match=r"uma-s-1p1 is a pickle of fairchem-core.*--trust-weights"):
            FairchemTeacher.load(name, TeacherOptions(offline=True))  # published or not: no hash is known
    with pytest.raises(LabelError, match="no weights at"):
        load(esen.with_name("none.pt"))


class Trap:
    """What runs code as it is unpickled: it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return type(self.mark).touch, (self.mark,)


def test_a_file_that_is_not_trusted_is_refused_before_it_is_opened(tmp_path):
    path, mark = tmp_path / "trap.pt", tmp_path / "ran"
    torch.save(Trap(mark), path)
    with pytest.raises(LabelError, match="--trust-weights"):
        load(path, trust_weights=False)
    assert not mark.exists()
    with pytest.raises(LabelError, match="no inference checkpoint"):
        load(path)
    assert mark.exists()


def test_a_file_of_something_else_is_an_error_that_names_it(tmp_path):
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(LabelError, match=r"text\.pt for no inference checkpoint"):
        load(tmp_path / "text.pt")
