"""The convolution by cuEquivariance against the plain one, and when which of them is taken."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipdb.errors import ConfigError, MissingExtraError
from mlipdb.testing.models import quick
from mlipdb.testing.training import tiny_nequix
from mlipdb.trainers import Calculator
from mlipdb.trainers.arrays import named_arrays
from mlipdb.trainers.checkpoint import load_model, save_model
from mlipdb.trainers.models import kernel
from mlipdb.trainers.models.convolution import EdgeFeatures, convolve, in_chunks
from mlipdb.trainers.models.derive import predict
from mlipdb.trainers.models.heads import Head, with_heads
from mlipdb.trainers.models.nequix import Nequix
from mlipdb.trainers.models.painn import Painn
from mlipdb.trainers.models.paths import coupled_paths
from mlipdb.trainers.models.segmented import convolve_segmented
from mlipdb.trainers.optimizer import make_optimizer
from mlipdb.trainers.recipe import OptimizerRecipe
from mlipdb.trainers.step import initial_state
from mlipdb.trainers.student import check_kernel

installed = pytest.mark.skipif(
    importlib.util.find_spec("cuequivariance_jax") is None, reason="needs pip install 'mlipdb[cuequivariance]'"
)
CONFIG = tiny_nequix((1, 8), (-1.0, -2.0), hidden_irreps="4x0e + 2x1o", radial_basis_size=2, radial_mlp_size=4)
MODEL = Nequix.create(CONFIG, key=jax.random.key(1))
GRAPH = kernel._small_graph(MODEL)
NAMES = ("energies", "forces", "stress", "Hessian rows")
answers = quick(kernel._answers.__wrapped__)


def double(tree):
    """With float64 numbers, which tell a wrong term from rounding."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, tree)


def evaluated(model, **changes):
    with jax.enable_x64(True):
        return jax.device_get(answers(double(model), dataclasses.replace(double(GRAPH), **changes)))


@pytest.fixture(scope="module")
def plain():
    return evaluated(MODEL)


@pytest.fixture(scope="module")
def segmented():
    return evaluated(kernel.with_kernel(MODEL, "cuequivariance"))


@installed
@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_gives_what_plain_gives(name, plain, segmented):
    assert np.abs(plain[name]).max() > 1e-3
    np.testing.assert_allclose(segmented[name], plain[name], rtol=1e-9, atol=1e-11)


@installed
def test_the_kernel_gives_the_gradients_by_the_weights_that_plain_gives(plain, segmented):
    expected, found = named_arrays(plain["gradients"]), named_arrays(segmented["gradients"])
    assert expected.keys() == found.keys() == named_arrays(MODEL).keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-8, atol=1e-9 * np.abs(values).max(), err_msg=name)


@installed
def test_forces_stress_and_a_hessian_row_of_the_kernel_are_finite_differences(segmented):
    model, step = kernel.with_kernel(MODEL, "cuequivariance"), 1e-4

    def moved(move, *, strain=0.0):
        with jax.enable_x64(True):
            turn = np.eye(3) + strain
            positions, cell = np.asarray(GRAPH.positions, np.float64), np.asarray(GRAPH.cell, np.float64)
            return evaluated(model, positions=jnp.asarray((positions + move) @ turn), cell=jnp.asarray(cell @ turn))

    first = np.zeros(GRAPH.positions.shape)
    first[0, 0] = step
    above, below = moved(first), moved(-first)
    slope = (above["energies"].sum() - below["energies"].sum()) / (2 * step)
    np.testing.assert_allclose(segmented["forces"][0, 0], -slope, rtol=1e-5)
    row = (below["forces"] - above["forces"]) / (2 * step)
    np.testing.assert_allclose(segmented["Hessian rows"][0], row, atol=1e-5 * np.abs(row).max())
    strain = np.zeros((3, 3))
    strain[0, 1] = strain[1, 0] = step
    change = moved(0.0, strain=strain)["energies"].sum() - moved(0.0, strain=-strain)["energies"].sum()
    volume = abs(np.linalg.det(np.asarray(GRAPH.cell[0], np.float64)))
    np.testing.assert_allclose(segmented["stress"][0, 0, 1], change / (4 * step) / volume, rtol=1e-5)


@installed
def test_paths_of_unequal_channels_are_in_their_places():
    rng, paths = np.random.default_rng(2), coupled_paths((4, 2, 2), lmax=2, channels_out=(1, 1, 1))
    edges = EdgeFeatures(
        radial=jnp.asarray(rng.normal(size=(11, 3)), jnp.float32),
        harmonics=jnp.asarray(rng.normal(size=(11, 9)), jnp.float32),
        senders=jnp.asarray(rng.integers(0, 5, 11), jnp.int32),
        receivers=jnp.asarray(np.sort(rng.integers(0, 5, 11)), jnp.int32),
    )
    features = {
        degree: jnp.asarray(rng.normal(size=(5, 2 * degree + 1, channels)), jnp.float32)
        for degree, channels in enumerate((4, 2, 2))
    }
    sizes = ((3, 4), (4, sum(path.channels for path in paths)))
    radial = tuple(jnp.asarray(rng.normal(size=size), jnp.float32) for size in sizes)
    results = []
    for convolution, given in ((convolve, in_chunks(edges, numbers=1, atoms=5)), (convolve_segmented, edges)):
        quickly = quick(lambda *given, use=convolution: use(*given, paths=paths))
        results.append(quickly(features, given, radial))
    for degree, expected in results[0].items():
        np.testing.assert_allclose(results[1][degree], expected, atol=1e-5 * np.abs(expected).max())


def with_words(model, wanted):
    lines = []
    return kernel.with_kernel(model, kernel.choose_kernel(model, wanted, say=lines.append)), lines


@pytest.fixture
def gpu(monkeypatch):
    """As if there were a GPU and both packages, and the kernel right."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(kernel.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(kernel, "fault", lambda config: None)
    return monkeypatch


def test_automatic_is_plain_without_a_gpu_and_says_so():
    model, lines = with_words(MODEL, "auto")
    assert model.kernel == "plain"
    assert lines == ["kernel plain: the device is a cpu, not a GPU"]


def test_automatic_is_the_kernel_where_it_is_installed_and_agrees(gpu):
    model, lines = with_words(MODEL, "auto")
    assert model.kernel == "cuequivariance"
    assert lines == ["kernel cuequivariance, held against plain to 0.001"]
    assert with_words(MODEL, "plain")[0].kernel == "plain"


@pytest.mark.parametrize(
    ("absent", "words"),
    [("cuequivariance_jax", r"pip install 'mlipdb\[cuequivariance\]'"), ("cuequivariance_ops_jax", "-ops-jax-cu12")],
)
def test_a_kernel_that_is_not_installed_names_the_command(absent, words, gpu):
    gpu.setattr(kernel.importlib.util, "find_spec", lambda name: None if name == absent else name)
    with pytest.raises(MissingExtraError, match=words):
        with_words(MODEL, "cuequivariance")
    model, [line] = with_words(MODEL, "auto")
    assert model.kernel == "plain"
    assert "pip install" in line


def test_a_kernel_that_differs_from_plain_is_not_used(gpu):
    gpu.undo()
    wrong = {"plain": 1.0, "cuequivariance": 1.01}
    gpu.setattr(kernel, "_answers", lambda model, graph: {"forces": np.array([wrong[model.kernel], 0.5])})
    reason = kernel.fault.__wrapped__(CONFIG)
    assert reason == "its forces differ from those of plain by 1.0e-02 of the largest"
    gpu.setattr(jax, "default_backend", lambda: "gpu")
    gpu.setattr(kernel.importlib.util, "find_spec", lambda name: name)
    gpu.setattr(kernel, "fault", lambda config: reason)
    assert with_words(MODEL, "auto")[1] == [f"kernel plain: {reason}"]
    with pytest.raises(ConfigError, match=r"differ.*--kernel plain"):
        with_words(MODEL, "cuequivariance")


@installed
def test_a_kernel_that_falls_back_to_slow_code_is_not_used(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(kernel, "_answers", jax.jit(lambda model, graph: predict(model, graph)))
    reason = kernel.fault.__wrapped__(dataclasses.replace(CONFIG, n_layers=1))
    assert "it fails (Method 'uniform_1d' requires CUDA" in reason


def test_a_model_without_such_a_kernel_refuses_it_by_name_only():
    with pytest.raises(ConfigError, match="for nequix, not for Painn"):
        check_kernel({"name": "painn"}, "cuequivariance")
    kernel.require_kernel("auto", Painn)
    assert with_words({"no": "model"}, "auto") == ({"no": "model"}, [])


def test_a_state_has_one_kernel_in_all_of_its_parts_and_the_same_arrays(gpu):
    heads = [Head(name="first", e0=CONFIG.e0), Head(name="second", e0=CONFIG.e0)]
    optimizer = make_optimizer(OptimizerRecipe())
    model = with_heads(MODEL, heads)  # its parts lack arrays, as those of the optimizer's state do
    state, _ = with_words(initial_state(model, optimizer), "auto")
    made = initial_state(with_words(model, "auto")[0], optimizer)
    assert jax.tree.structure(state) == jax.tree.structure(made)
    np.testing.assert_equal(named_arrays(state), named_arrays(made))


def test_checkpoints_know_nothing_of_the_kernel(tmp_path, gpu):
    changed, _ = with_words(MODEL, "auto")
    save_model(tmp_path / "model", changed, name="nequix")
    again = load_model(tmp_path / "model")
    assert again.kernel == "plain"
    np.testing.assert_equal(named_arrays(again), named_arrays(changed))


def test_a_calculator_says_which_kernel_it_has():
    assert Calculator(MODEL).kernel == "kernel plain"
    assert "not a GPU" in Calculator(MODEL, kernel="auto").kernel
