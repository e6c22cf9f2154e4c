"""MACE against itself: a small model with random weights is made with the package and labelled by both."""

import hashlib
import itertools
import shutil
import warnings

import numpy as np
import pytest

from mlipdb.errors import ConfigError, DownloadError, LabelError
from mlipdb.labelling.load import load_teacher
from mlipdb.labelling.teacher import LabelRequest, TeacherOptions
from mlipdb.structures import make_structure
from mlipdb.testing.teachers import NO_ROWS, TeacherConformance, crystal, molecule, slab

torch = pytest.importorskip("torch")
pytest.importorskip("matscipy")  # of mace-torch, whose own import is noisy

from mlipdb.teachers import mace_weights, torch_device  # noqa: E402 - they import torch
from mlipdb.teachers.mace import MaceTeacher  # noqa: E402

E0 = {1: -13.571964773, 6: -1030.567164132, 8: -2043.933687745, 14: -7881.5}

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


def make_model(path, *, heads=("Default",)):
    """Writes a .model file as the package does: a ScaleShiftMACE of two layers for H, C, O and Si."""
    modules = mace_weights.package("mace.modules")
    e3nn = mace_weights.package("e3nn.o3")
    e0 = np.array([[value - 10.0 * place for value in E0.values()] for place in range(len(heads))])
    several = len(heads) > 1
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            torch.manual_seed(11)
            model = modules.ScaleShiftMACE(
                r_max=3.5,
                num_bessel=5,
                num_polynomial_cutoff=5,
                max_ell=2,
                interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
                interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
                num_interactions=2,
                num_elements=4,
                hidden_irreps=e3nn.Irreps("4x0e + 4x1o"),
                MLP_irreps=e3nn.Irreps("4x0e"),
                atomic_energies=e0 if several else e0[0],
                avg_num_neighbors=10.0,
                atomic_numbers=list(E0),
                correlation=2,
                gate=torch.nn.functional.silu,
                radial_MLP=[8, 8],
                atomic_inter_scale=[0.8, 0.5][: len(heads)] if several else 0.8,
                atomic_inter_shift=[0.1, -0.2][: len(heads)] if several else 0.1,
                heads=list(heads),
            )
            torch.save(model, path)
    finally:
        torch.set_default_dtype(default)
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("mace") / "small.model")


@pytest.fixture(scope="session")
def two_heads(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("mace") / "heads.model", heads=("pbe", "r2scan"))


def load(path, name="mace", **options):
    return MaceTeacher.load(name, TeacherOptions(weights=path, trust_weights=True, **options))


@pytest.fixture(scope="session")
def double(small):
    return load(small)


@pytest.fixture(scope="session")
def single(small):
    return load(small, dtype="float32")


def calculator(path, **options):
    """The package's own ASE calculator of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mace_weights.package("mace.calculators").MACECalculator(
            model_paths=str(path), device="cpu", default_dtype="float64", **options
        )


def atoms(structure):
    ase = pytest.importorskip("ase")
    return ase.Atoms(structure.atomic_numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)


def base(teacher, *structures):
    return teacher.label(structures, LabelRequest(base=True, hessian_row_numbers=[NO_ROWS] * len(structures)))


class TestMace(TeacherConformance):
    batch_tolerance = 1e-9  # of energies of ten thousand eV

    step = 1e-3
    force_tolerance = 1e-5
    stress_tolerance = 1e-6
    hessian_tolerance = 1e-4

    @pytest.fixture(autouse=True)
    def keep(self, double):
        self.kept = double

    def teacher(self):
        return self.kept


class TestSinglePrecision(TeacherConformance):
    # an energy is good to 1e-6 eV, so a difference over 2e-2 Å to 1e-4 eV/Å
    step = 1e-2
    batch_tolerance = 2e-6
    force_tolerance = 2e-3
    stress_tolerance = 2e-4
    hessian_tolerance = 2e-2

    @pytest.fixture(autouse=True)
    def keep(self, single):
        self.kept = single

    def teacher(self):
        return self.kept


@pytest.mark.parametrize("structure", [crystal(), molecule(), slab()], ids=["crystal", "molecule", "slab"])
def test_labels_are_those_of_the_packages_calculator(small, structure):
    theirs, ours = atoms(structure), base(load(small), structure)[0]
    theirs.calc = calculator(small)
    assert ours.energy_uncorrected == pytest.approx(theirs.get_potential_energy(), abs=1e-8)
    np.testing.assert_allclose(ours.forces, theirs.get_forces(), atol=1e-9)
    np.testing.assert_allclose(ours.atomic_energies, theirs.calc.results["energies"], atol=1e-8)
    e0 = np.array([E0[number] for number in structure.atomic_numbers.tolist()])
    np.testing.assert_allclose(ours.atomic_energies - e0, theirs.calc.results["node_energy"], atol=1e-8)
    if all(structure.pbc):
        np.testing.assert_allclose(ours.stress, theirs.get_stress(voigt=False), atol=1e-10)


def test_rows_of_a_batch_are_those_of_the_packages_get_hessian(small):
    structures = [crystal(), molecule(), slab()]
    rows = [np.random.default_rng(5).permutation(3 * len(item)).astype(np.int32)[: 3 + k] for k, item in
            enumerate(structures)]  # fmt: skip
    labels = load(small).label(structures, LabelRequest(base=False, hessian_row_numbers=rows))
    for structure, numbers, label in zip(structures, rows, labels, strict=True):
        hessian = calculator(small).get_hessian(atoms(structure)).reshape(3 * len(structure), len(structure), 3)
        np.testing.assert_allclose(label.hessian_rows, hessian[numbers], atol=1e-9)


def test_single_precision_does_not_round_e0_into_the_energy(small):
    """A thousand atoms far apart are a thousand times one, though float32 knows -7881.5 eV to 5e-4 only."""
    teacher = load(small, dtype="float32")
    places = np.array(list(itertools.product(range(10), repeat=3)), dtype=np.float64) * 50.0
    gas, alone = make_structure(np.full(1000, 14), places), make_structure([14], [[0.0, 0.0, 0.0]])
    first, second = (label.energy_uncorrected for label in base(teacher, gas, alone))
    assert first == pytest.approx(1000 * second, abs=1e-9)


def test_a_batch_without_any_edge_has_labels_and_rows_of_zero(small):
    alone = make_structure([14], [[0.0, 0.0, 0.0]])
    rows = [np.array([0, 2], np.int32)]
    label = load(small).label([alone], LabelRequest(base=True, hessian_row_numbers=rows))[0]
    assert label.forces.tolist() == [[0.0, 0.0, 0.0]]
    assert not label.hessian_rows.any()
    assert label.hessian_rows.shape == (2, 1, 3)


def test_structures_far_from_the_origin_get_the_same_label(small):
    here = molecule()
    there = make_structure(here.atomic_numbers, here.positions + 4096.0)
    first, second = base(load(small), here, there)
    np.testing.assert_allclose(first.forces, second.forces, atol=1e-9)


def test_the_method_says_which_weights_and_which_arithmetic_made_a_label(small):
    info = load(small, dtype="float32").info
    assert info.weights_sha256 == hashlib.sha256(small.read_bytes()).hexdigest()
    assert (info.name, info.package, info.dtype, dict(info.settings)) == ("mace", "mace-torch", "float32", {})
    assert load(small).info.dtype == "float64"
    assert info.method().e0_convention == "e0 included"
    assert info.atomic_numbers == frozenset(E0)


class TestHeads:
    def test_each_head_gives_its_own_energies_and_is_part_of_the_method(self, two_heads):
        for head in ("pbe", "r2scan"):
            teacher, theirs = load(two_heads, settings={"head": head}), atoms(crystal())
            theirs.calc = calculator(two_heads, head=head)
            assert base(teacher, crystal())[0].energy_uncorrected == pytest.approx(
                theirs.get_potential_energy(), abs=1e-8
            )
            assert teacher.info.method().settings == {"head": head}

    def test_several_heads_without_a_choice_are_an_error_that_lists_them(self, two_heads):
        with pytest.raises(ConfigError, match=r"--set head=NAME among pbe, r2scan"):
            load(two_heads)

    def test_an_unknown_head_is_refused_with_a_suggestion(self, two_heads):
        with pytest.raises(ConfigError, match=r"no head 'r2scna'. Did you mean 'r2scan'"):
            load(two_heads, settings={"head": "r2scna"})

    def test_another_setting_is_refused(self, small):
        with pytest.raises(ConfigError, match=r"no setting 'heads'\. Did you mean 'head'"):
            load(small, settings={"heads": "pbe"})


class TestTrust:
    @pytest.mark.parametrize("name", ["mace", "mace-mp-small", "mace-off-medium"])
    def test_a_pickled_model_is_not_opened_without_trust(self, small, name):
        with pytest.raises(LabelError, match=r"runs whatever code the file holds.*--trust-weights"):
            MaceTeacher.load(name, TeacherOptions(weights=small))

    def test_a_published_name_is_not_fetched_without_trust(self):
        with pytest.raises(LabelError, match="mace-mp-small is a pickled model"):
            MaceTeacher.load("mace-mp-small", TeacherOptions(offline=True))


class TestFiles:
    def test_a_file_that_is_no_model_is_named(self, tmp_path):
        path = tmp_path / "broken.model"
        path.write_bytes(b"no pickle at all")
        with pytest.raises(LabelError, match=r"broken\.model cannot be read as a MACE model"):
            load(path)

    def test_a_state_without_its_model_is_refused(self, tmp_path):
        torch.save({"weights": torch.zeros(3)}, tmp_path / "state.model")
        with pytest.raises(LabelError, match=r"holds a dict, which is no MACE model of energies"):
            load(tmp_path / "state.model")

    def test_missing_weights_name_the_path(self, tmp_path):
        with pytest.raises(LabelError, match=r"nowhere\.model"):
            load(tmp_path / "nowhere.model")

    def test_mace_without_weights_names_the_known_ones(self):
        with pytest.raises(LabelError, match=r"needs --weights FILE.model.*mace-mp-medium-0b3"):
            MaceTeacher.load("mace", TeacherOptions(trust_weights=True))

    def test_offline_says_which_file_to_get_and_where_to_put_it(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        options = TeacherOptions(trust_weights=True, offline=True, cache=tmp_path / "ours")
        with pytest.raises(DownloadError, match=r"download https://.*MACE-OFF23_small\.model by hand"):
            MaceTeacher.load("mace-off-small", options)

    def test_the_packages_own_copy_of_published_weights_is_used(self, small, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        (tmp_path / "mace").mkdir()
        shutil.copy(small, tmp_path / "mace" / "macemp0b3mediummodel")  # as mace-torch spells it
        teacher = MaceTeacher.load("mace-mp-medium-0b3", TeacherOptions(trust_weights=True, offline=True))
        assert (teacher.info.name, teacher.info.functional) == ("mace-mp-medium-0b3", "PBE+U")

    def test_the_family_alone_is_the_packages_default(self, small):
        assert load(small, "mace-mp").info.name == "mace-mp-medium-mpa-0"
        assert load(small, "mace-off").info.functional == "wB97M-D3(BJ)"

    @pytest.mark.parametrize("table", ["mace_mp_urls", "mace_off_urls"])
    def test_every_name_that_the_package_publishes_is_known(self, table):
        found = getattr(mace_weights.package("mace.calculators.foundations_models"), table)
        assert set(found) == {item.key for item in mace_weights.PUBLISHED.values() if item.table == table}

    def test_every_name_is_an_entry_point(self, small):
        for name in [*mace_weights.PUBLISHED, *mace_weights.DEFAULTS, mace_weights.ANY]:
            loaded = load_teacher(name, TeacherOptions(weights=small, trust_weights=True))
            assert loaded.info.name == mace_weights.resolve(name)


class TestDevice:
    def test_a_device_that_is_not_there_is_an_error_that_names_it(self, small):
        if torch.cuda.is_available():
            pytest.skip("this machine has CUDA")
        with pytest.raises(ConfigError, match="--device cuda:0 cannot be used"):
            load(small, device="cuda:0")

    def test_a_dtype_that_is_none_is_an_error_that_lists_those_that_are(self, small):
        with pytest.raises(ConfigError, match="--dtype float16 is not one of float32, float64"):
            load(small, dtype="float16")

    def test_a_step_is_refused_because_rows_are_exact(self, small):
        with pytest.raises(ConfigError, match=r"no use for step=0\.01"):
            load(small, step=0.01)

    def test_what_torch_raises_when_memory_is_full_is_a_memory_error(self):
        with pytest.raises(MemoryError, match="allocate"), torch_device.memory_errors():
            torch.empty(1 << 60)

    def test_other_errors_of_torch_stay_what_they_are(self):
        with pytest.raises(RuntimeError, match="shape"), torch_device.memory_errors():
            torch.zeros(3).reshape(2)
