import dataclasses
import itertools
import json
from functools import partial

import e3nn_jax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipdb.errors import ConfigError
from mlipdb.structures import make_structure
from mlipdb.testing.models import QUICK
from mlipdb.testing.training import tiny_nequix
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import needed_shape, pad_graph
from mlipdb.trainers.models import convolution
from mlipdb.trainers.models.convolution import EdgeFeatures, convolve, in_chunks
from mlipdb.trainers.models.derive import predict_with_rows
from mlipdb.trainers.models.edges import bessel, lengths_and_directions, polynomial_cutoff, spherical_harmonics
from mlipdb.trainers.models.features import gate, normalise
from mlipdb.trainers.models.nequix import Nequix, NequixConfig
from mlipdb.trainers.models.paths import Path, coupled_paths, coupling, parse_irreps

RNG = np.random.default_rng(2)
PATHS = [
    (l_in, l_edge, l_out)
    for l_in, l_edge, l_out in itertools.product(range(4), repeat=3)
    if abs(l_in - l_edge) <= l_out <= l_in + l_edge and (l_in + l_edge + l_out) % 2 == 0
]
ATOMS, EDGES, CHANNELS = 5, 11, 3


def random_edges(lmax: int) -> EdgeFeatures:
    vectors = RNG.normal(size=(EDGES, 3)).astype(np.float32)
    _, directions = lengths_and_directions(jnp.asarray(vectors))
    return EdgeFeatures(
        radial=jnp.asarray(RNG.normal(size=(EDGES, 4)), jnp.float32),
        harmonics=jnp.concatenate(spherical_harmonics(directions, lmax=lmax), axis=1),
        senders=jnp.asarray(RNG.integers(0, ATOMS, EDGES), jnp.int32),
        receivers=jnp.asarray(np.sort(RNG.integers(0, ATOMS, EDGES)), jnp.int32),
    )


def convolved(features, edges, radial, paths):
    numbers = sum(path.components * path.channels for path in paths)
    return convolve(features, in_chunks(edges, numbers=numbers, atoms=ATOMS), radial, paths=paths)


def random_radial(numbers: int) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((4, 6), (6, numbers)))


def random_features(channels: dict[int, int]) -> dict[int, jax.Array]:
    return {
        degree: jnp.asarray(RNG.normal(size=(ATOMS, 2 * degree + 1, n)), jnp.float32) for degree, n in channels.items()
    }


@pytest.mark.parametrize("degrees", PATHS, ids=str)
def test_a_path_couples_as_e3nn_does(degrees):
    l_in, l_edge, _ = degrees
    left = RNG.normal(size=(1, 2 * l_in + 1)).astype(np.float32)
    right = RNG.normal(size=(1, 2 * l_edge + 1)).astype(np.float32)
    irreps = [e3nn_jax.Irrep(degree, (-1) ** degree) for degree in degrees]
    expected = e3nn_jax.tensor_product(
        e3nn_jax.IrrepsArray(irreps[0], left), e3nn_jax.IrrepsArray(irreps[1], right), filter_ir_out=[irreps[2]]
    ).array
    found = np.einsum("ei,ej,ijk->ek", left, right, coupling(*degrees))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("bytes_at_once", [convolution.CPU_CHUNK_BYTES, 1], ids=["all edges at once", "in chunks"])
def test_convolution_is_the_sum_over_edges_path_by_path(bytes_at_once, monkeypatch):
    monkeypatch.setattr(convolution, "CPU_CHUNK_BYTES", bytes_at_once)
    paths = coupled_paths((3, 2, 2, 1), lmax=3, channels_out=(1, 1, 1, 1))
    edges, features = random_edges(3), random_features({0: 3, 1: 2, 2: 2, 3: 1})
    radial = random_radial(sum(path.channels for path in paths))
    hidden = edges.radial @ radial[0]
    weights = np.asarray(hidden / (1 + np.exp(-hidden)) @ radial[1])
    expected = {degree: [] for degree in range(4)}
    start = 0
    for path in paths:
        harmonics = edges.harmonics[:, path.l_edge**2 : (path.l_edge + 1) ** 2]
        sent = features[path.l_in][edges.senders]
        messages = np.einsum("eiu,ej,ijk->eku", sent, harmonics, coupling(path.l_in, path.l_edge, path.l_out))
        messages *= weights[:, None, start : start + path.channels]
        start += path.channels
        sums = np.zeros((ATOMS, *messages.shape[1:]))
        np.add.at(sums, np.asarray(edges.receivers), messages)
        expected[path.l_out].append(sums)
    found = convolved(features, edges, radial, paths)
    for degree, sums in expected.items():
        np.testing.assert_allclose(found[degree], np.concatenate(sums, axis=2), atol=2e-4)


def test_derivatives_in_chunks_are_those_of_all_edges_at_once(monkeypatch):
    paths = coupled_paths((2, 1), lmax=1, channels_out=(1, 1))
    edges, features = random_edges(1), random_features({0: 2, 1: 1})
    radial = random_radial(sum(path.channels for path in paths))

    def energy(basis, harmonics, radial):
        moved = edges._replace(radial=basis, harmonics=harmonics)
        return sum(jnp.sin(values).sum() for values in convolved(features, moved, radial, paths).values())

    def second(basis, harmonics, radial):
        slopes = jax.grad(energy, argnums=(0, 1))
        gradient, change = jax.jvp(lambda b, h: slopes(b, h, radial), (basis, harmonics), (basis, harmonics))
        return sum((values**2).sum() for values in (*gradient, *change))

    at_once = jax.jit(jax.grad(second, argnums=(0, 1, 2)))(edges.radial, edges.harmonics, radial)
    monkeypatch.setattr(convolution, "CPU_CHUNK_BYTES", 1)
    chunked = jax.jit(jax.grad(lambda *arguments: second(*arguments), argnums=(0, 1, 2)))
    for found, expected in zip(
        jax.tree.leaves(chunked(edges.radial, edges.harmonics, radial)), jax.tree.leaves(at_once), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_chunks_are_smaller_by_the_rows_that_are_carried_along():
    assert convolution.count_chunks(8000, numbers=8192, atoms=100) == 63  # 128 edges, 4 MiB, each
    assert convolution.count_chunks(8000, numbers=8192, atoms=100, rows=4) == 250
    assert convolution.count_chunks(8000, numbers=8192, atoms=1000) == 8  # as many edges as atoms
    assert convolution.count_chunks(8000, numbers=128, atoms=100, rows=8) == 1  # all at once where they fit


@pytest.mark.parametrize("asked", [[[4, -1]], [[4, -1], [1, -1]]], ids=["one row", "two rows"])
def test_rows_that_are_differentiated_keep_no_messages_of_all_edges(asked, monkeypatch):
    monkeypatch.setattr(convolution, "CPU_CHUNK_BYTES", 1)
    config = tiny_nequix((8, 14), (-1.0, -2.0), cutoff=5.0, n_layers=1)
    model = Nequix.create(config, key=jax.random.key(0))
    crystal = make_structure([14, 8], [[0.1, 0, 0], [1.6, 1.4, 1.5]], cell=3.1 * np.eye(3), pbc=(True,) * 3)
    lists = [neighbours(crystal, model.cutoff)]
    graph = jax.tree.map(jnp.asarray, pad_graph([crystal], lists, shape=needed_shape([crystal], lists)))

    @partial(jax.jit, static_argnums=1, compiler_options=QUICK)
    def answers(model, alone):
        def squares(model):
            prediction, rows = predict_with_rows(model, graph, jnp.array(asked), written_out=alone)
            return (rows**2).sum(), (rows, prediction.energy, prediction.forces, prediction.stress)

        return jax.grad(squares, has_aux=True)(model)

    programs = [answers.lower(model, alone).compile() for alone in (True, False)]
    alone, kept = (program.memory_analysis().temp_size_in_bytes for program in programs)
    assert alone < 0.5 * kept
    for found, expected in zip(*(jax.tree.leaves(program(model)) for program in programs), strict=True):
        assert expected.any()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_paths_of_the_published_size_are_in_its_order():
    paths = coupled_paths((128, 64, 32, 32), lmax=3, channels_out=(128, 64, 32, 32))
    into_vectors = [(path.l_in, path.l_edge, path.channels) for path in paths if path.l_out == 1]
    assert into_vectors == [(0, 1, 128), (1, 0, 64), (1, 2, 64), (2, 1, 32), (2, 3, 32), (3, 2, 32)]
    assert sum(path.channels for path in paths) == 1312


def test_coupling_of_two_vectors_by_hand():
    # The scalar of two vectors is their dot product over √3; the scale √(2·0 + 1) is one.
    np.testing.assert_allclose(coupling(1, 1, 0)[:, :, 0], np.eye(3) / np.sqrt(3), atol=1e-7)
    assert Path(1, 1, 2, 4).components == 5


def test_harmonics_are_those_of_e3nn():
    vectors = RNG.normal(size=(6, 3)).astype(np.float32)
    _, directions = lengths_and_directions(jnp.asarray(vectors))
    for degree, found in enumerate(spherical_harmonics(directions, lmax=4)):
        wanted = e3nn_jax.spherical_harmonics(degree, e3nn_jax.IrrepsArray("1o", vectors), True, "component")
        np.testing.assert_allclose(found, wanted.array, atol=2e-6)


def test_radial_basis_and_cutoff_have_their_closed_forms():
    # rc = 4, r = 1: b_2 = (2/4)·sin(2π/4)/1 = 0.5; p = 2, x = 1/4: 1 − 6x² + 8x³ − 3x⁴ = 0.73828125
    lengths = jnp.asarray([1.0, 0.0, 4.0, 5.0], jnp.float32)
    basis = bessel(lengths, cutoff=4.0, size=3)
    assert basis[0, 1] == pytest.approx(0.5)
    assert basis[1, 2] == pytest.approx(2 / 4 * 3 * np.pi / 4)
    envelope = polynomial_cutoff(lengths, cutoff=4.0, power=2.0)
    np.testing.assert_allclose(envelope, [0.73828125, 1.0, 0.0, 0.0], atol=1e-6)


def test_a_zero_edge_has_finite_second_derivatives():
    def total(vector):
        lengths, directions = lengths_and_directions(vector[None])
        return (
            bessel(lengths, cutoff=4.0, size=2).sum()
            + jnp.concatenate(spherical_harmonics(directions, lmax=3), 1).sum()
        )

    assert np.isfinite(jax.hessian(total)(jnp.zeros(3))).all()


def test_the_norm_sums_over_channels_and_averages_over_components():
    # One atom, scalars (1, 2) and a vector of two channels: (5 + (4 + 9)/9)/2 = 3.2222
    features = {0: jnp.asarray([[[1.0, 2.0]]]), 1: jnp.asarray([[[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]]])}
    found = normalise(features, (jnp.asarray([1.0, 2.0]), jnp.asarray([1.0, 1.0])))
    norm = np.sqrt((5 + 13 / 9) / 2)
    np.testing.assert_allclose(found, np.array([[1, 4, 2, 0, 0, 3, 0, 0]]) / norm, rtol=1e-6)


def test_gates_are_activated_scalars_after_the_features_in_ascending_degree():
    scalars, rest = jnp.asarray([1.0, -2.0, 0.5, 3.0]), jnp.arange(13.0)
    found = gate(jnp.concatenate([scalars, rest])[None], (1, 1, 2), activation_norm=0.5)
    activated = np.asarray(jax.nn.silu(scalars)) / 0.5
    quadrupoles = activated[2:] * np.arange(3.0, 13.0).reshape(5, 2)  # components by channels
    np.testing.assert_allclose(found[0][0, 0], activated[:1])
    np.testing.assert_allclose(found[1][0, :, 0], activated[1] * np.arange(3.0))
    np.testing.assert_allclose(found[2][0], quadrupoles)


@pytest.mark.parametrize("text", ["4x1o", "4x0e + 2x1e", "2x1o + 4x0e", "4x0e + 2x0e", "four scalars"])
def test_hidden_irreps_that_cannot_be_are_refused(text):
    with pytest.raises(ConfigError, match="hidden_irreps"):
        parse_irreps(text)


def test_a_config_passes_through_json():
    config = NequixConfig(atomic_numbers=(1, 8), e0=(-1.25, 0.1), hidden_irreps="2x0e + 1x2e", n_layers=1, lmax=2)
    model = Nequix.create(config, key=jax.random.key(0))
    again = Nequix.from_config(json.loads(json.dumps(model.to_config())))
    assert again.config == config
    assert dataclasses.replace(config, cutoff=5.0) != config


def test_an_unknown_setting_gets_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'n_layers'"):
        Nequix.from_config({"atomic_numbers": [1], "e0": [0.0], "n_layer": 2})


@pytest.mark.parametrize(
    "change",
    [{"lmax": 2}, {"atomic_numbers": (8, 1), "e0": (0.0, 0.0)}, {"e0": ()}, {"n_layers": 0}, {"cutoff": -1.0}],
    ids=str,
)
def test_a_setting_out_of_range_is_refused(change):
    with pytest.raises(ConfigError):
        NequixConfig(**{"atomic_numbers": (1,), "e0": (0.0,), **change})
