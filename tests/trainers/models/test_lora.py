"""Low-rank changes: what learns, that nothing happens at first, that merging changes nothing, and symmetry."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipdb.errors import ConfigError
from mlipdb.structures import make_structure
from mlipdb.testing.models import QUICK, made, quick
from mlipdb.testing.training import tiny_nequix
from mlipdb.trainers.arrays import named_arrays
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import needed_shape, pad_graph
from mlipdb.trainers.matrices import is_matrix
from mlipdb.trainers.models.derive import predict
from mlipdb.trainers.models.features import over_fan_in
from mlipdb.trainers.models.gemnet import GemNetT
from mlipdb.trainers.models.gemnet_config import GemNetConfig
from mlipdb.trainers.models.heads import Head, with_heads
from mlipdb.trainers.models.lora import Adapted, adapt, effective
from mlipdb.trainers.models.nequix import Nequix
from mlipdb.trainers.models.nqx import load_nqx, save_nqx
from mlipdb.trainers.models.painn import PainnConservative
from mlipdb.trainers.models.painn_config import PainnConfig
from mlipdb.trainers.optimizer import trainable

pytestmark = pytest.mark.slow

CRYSTAL = make_structure(
    [14, 8], [[0.05, 0.1, -0.1], [1.6, 1.35, 1.5]], cell=[[3.1, 0.2, 0], [0, 3.0, 0.4], [0.3, 0, 3.3]], pbc=(True,) * 3
)
MOLECULE = make_structure([8, 1, 1], [[0, 0, 0], [0.98, 0.1, 0], [-0.2, 0.95, 0.15]])
FACTS = {"atomic_numbers": (1, 8, 14), "e0": (-1.0, -2.0, -3.0), "scale": 0.8, "shift": 0.1, "cutoff": 3.0}
NEQUIX = tiny_nequix(**FACTS, avg_n_neighbors=12.0)
PAINN = PainnConfig(
    **FACTS, direct=False, max_neighbours=9, n_layers=2, hidden_size=16, n_radial=5, scale_factors=(1.2, 1.3)
)
KINDS = {"nequix": (Nequix, NEQUIX), "painn-conservative": (PainnConservative, PAINN)}
# With the newer code generator both programs round alike.
to_the_bit = eqx.filter_jit(
    lambda model, graph: predict(effective(model), graph),
    compiler_options={**QUICK, "xla_cpu_use_fusion_emitters": True},
)
before_merging = quick(lambda model, graph: predict(effective(model), graph))


@pytest.fixture(params=list(KINDS))
def model(request):
    return made(*KINDS[request.param])


def learnt(model, *, size=0.3):
    """The model adapted, with changes as large as its matrices: as after a training."""
    adapted = adapt(model, rank=3, alpha=2.0, key=jax.random.key(5))
    keys = jax.random.split(jax.random.key(6), len(adapted.factors))
    factors = {
        name: dataclasses.replace(one, lora_out=size * jax.random.normal(key, one.lora_out.shape))
        for (name, one), key in zip(adapted.factors.items(), keys, strict=True)
    }
    return dataclasses.replace(adapted, factors=factors)


def double(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def graph_of(model, *structures, exact=False):
    lists = [neighbours(structure, model.cutoff, needs=model.graph_needs) for structure in structures]
    graph = pad_graph(structures, lists, shape=needed_shape(structures, lists))
    if exact:
        positions = np.concatenate([*[s.positions - s.positions.mean(axis=0) for s in structures], np.zeros((1, 3))])
        cell = np.concatenate([*[s.cell[None] for s in structures], np.zeros((1, 3, 3))])
        graph = dataclasses.replace(graph, positions=positions, cell=cell, shifts=graph.shifts.astype(np.float64))
    return jax.tree.map(jnp.asarray, graph)


def same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_nothing_changes_at_first_to_the_bit(model):
    adapted = adapt(model, rank=3, alpha=2.0, key=jax.random.key(5))
    same(named_arrays(effective(adapted)), named_arrays(model))
    graph = graph_of(model, CRYSTAL, MOLECULE)
    same(to_the_bit(adapted, graph), to_the_bit(model, graph))


def test_every_matrix_has_a_change_of_its_own_and_nothing_else_has_one(model):
    adapted = adapt(model, rank=3, alpha=2.0, key=jax.random.key(5))
    leaves, _ = jax.tree_util.tree_flatten_with_path(model)
    matrices = {name for name, (path, leaf) in zip(named_arrays(model), leaves, strict=True) if is_matrix(path, leaf)}
    assert set(adapted.factors) == matrices
    assert not any("gain" in name or "bias" in name or "embedding" in name for name in matrices)
    first = adapted.factors[min(matrices)].lora_in
    assert not any(np.array_equal(first, one.lora_in) for name, one in adapted.factors.items() if name != min(matrices))


def test_each_degree_of_an_equivariant_map_has_a_change_of_its_own():
    names = set(adapt(made(Nequix, NEQUIX), rank=2, alpha=1.0, key=jax.random.key(5)).factors)
    of_layers = [
        "layers[0].linear_out[0]",
        "layers[0].linear_out[1]",
        "layers[1].linear_in[0]",
        "layers[1].linear_in[1]",
    ]
    assert {*of_layers, "layers[1].radial[0]", "layers[1].radial[1]", "layers[1].skip[0]", "readout"} <= names


def test_only_the_changes_learn(model):
    adapted = learnt(model)
    flags = trainable(adapted)
    assert not any(jax.tree.leaves(flags.base))
    assert all(jax.tree.leaves(flags.factors))


def test_rank_four_on_published_weights_is_fifty_thousand_numbers(shared_data):
    model, _ = load_nqx(shared_data / "nequix" / "models" / "nequix-mp-1.nqx")
    adapted = adapt(model, rank=4, alpha=1.0, key=jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(adapted.factors)) == 50_128


@pytest.mark.parametrize("merged", [False, True], ids=["before merging", "after merging"])
def test_rotation_with_inversion_turns_forces_and_stress_and_keeps_energies(model, merged):
    turn, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))
    turn = -turn if np.linalg.det(turn) > 0 else turn
    changed = effective(learnt(model)) if merged else learnt(model)
    with jax.enable_x64(True):
        for structure in (CRYSTAL, MOLECULE):
            turned = dataclasses.replace(
                structure, positions=structure.positions @ turn.T, cell=structure.cell @ turn.T
            )
            first, second = (
                before_merging(double(changed), graph_of(model, one, exact=True)) for one in (structure, turned)
            )
            assert np.abs(first.forces).max() > 1e-3
            np.testing.assert_allclose(second.atomic_energies, first.atomic_energies, atol=1e-9)
            np.testing.assert_allclose(second.forces, first.forces @ turn.T, atol=1e-8)
            np.testing.assert_allclose(second.stress, turn @ np.asarray(first.stress) @ turn.T, atol=1e-8)


def test_a_merged_model_says_what_the_unmerged_one_says(model):
    changed = learnt(model)
    graph = graph_of(model, CRYSTAL, MOLECULE)
    first, second = before_merging(changed, graph), before_merging(effective(changed), graph)
    untouched = before_merging(model, graph)
    for name in ("energy", "forces", "stress"):
        found, expected = np.asarray(getattr(second, name)), np.asarray(getattr(first, name))
        np.testing.assert_allclose(found, expected, atol=1e-6 * max(1.0, np.abs(expected).max()))
    assert np.abs(untouched.forces - first.forces).max() > 0.01


def test_the_merged_matrices_do_what_the_matrix_and_its_change_do_apart():
    """Without any merging: x·W and, beside it, the two thin products, in the model's own map of one degree."""
    mapped = lambda values, matrix: jnp.matmul(values, over_fan_in(jnp.asarray(matrix)), precision="highest")  # noqa: E731
    model = made(Nequix, NEQUIX)
    changed = learnt(model)
    merged, rng = named_arrays(effective(changed)), np.random.default_rng(3)
    for name, matrix in named_arrays(model).items():
        if name not in changed.factors or ".radial" in name:
            continue
        one = changed.factors[name]
        values = jnp.asarray(rng.normal(size=(5, 3, len(matrix))), jnp.float32)
        through = jnp.matmul(values, one.lora_in, precision="highest")
        beside = (
            changed.scaling * jnp.matmul(through, one.lora_out, precision="highest") / np.float32(len(matrix) ** 0.5)
        )
        apart = mapped(values, matrix) + beside
        whole = mapped(values, merged[name])
        np.testing.assert_allclose(whole, apart, atol=1e-6 * max(1.0, float(jnp.abs(apart).max())), err_msg=name)


def test_a_stack_of_matrices_has_a_stack_of_changes():
    sizes = dict.fromkeys(("n_radial", "n_spherical", "rbf_size", "triplet_size", "atom_size", "edge_size"), 4)
    config = GemNetConfig(**FACTS, **sizes, direct=False, n_blocks=1, cbf_size=5, bilinear_size=6)
    adapted = learnt(GemNetT.create(config, key=jax.random.key(0)))
    one = adapted.factors["network.blocks[0].bilinear"]
    assert (one.lora_in.shape, one.lora_out.shape) == ((4, 5, 3), (4, 3, 6))
    matrix = np.asarray(adapted.base.network.blocks[0].bilinear)[2]
    expected = matrix + 2 / 3 * np.asarray(one.lora_in)[2] @ np.asarray(one.lora_out)[2]
    np.testing.assert_allclose(effective(adapted).network.blocks[0].bilinear[2], expected, atol=1e-6)


def test_changes_are_as_large_as_what_they_change_and_learn_where_that_is_nothing():
    model = eqx.tree_at(lambda m: m.readout, made(Nequix, NEQUIX), jnp.zeros((8, 1)))
    adapted = adapt(model, rank=50, alpha=1.0, key=jax.random.key(1))
    for name in ("layers[1].skip[0]", "layers[1].radial[0]"):
        spread = float(np.asarray(adapted.factors[name].lora_in).std())
        assert spread == pytest.approx(float(np.sqrt(np.square(named_arrays(model)[name]).mean())), rel=0.2)
    assert np.asarray(adapted.factors["readout"].lora_in).std() == pytest.approx(8**-0.5, rel=0.2)


def test_heads_are_adapted_with_their_trunk():
    headed = with_heads(made(Nequix, NEQUIX), [Head(name="target"), Head(name="foundation")])
    names = set(adapt(headed, rank=1, alpha=1.0, key=jax.random.key(0)).factors)
    assert {"readouts[0].readout", "readouts[1].readout", "shared.layers[0].skip[0]"} <= names


def test_a_merged_model_is_written_as_nqx_and_read_back(tmp_path):
    changed = learnt(made(Nequix, NEQUIX))
    save_nqx(tmp_path / "merged.nqx", effective(changed))
    again, _ = load_nqx(tmp_path / "merged.nqx")
    graph = graph_of(again, CRYSTAL)
    first, second = before_merging(again, graph), before_merging(changed, graph)
    np.testing.assert_allclose(first.energy, second.energy, atol=1e-6 * max(1.0, float(np.abs(second.energy).max())))
    assert isinstance(changed, Adapted)


def test_a_rank_below_one_is_refused():
    with pytest.raises(ConfigError, match="must be 1 or more; got 0"):
        adapt(made(Nequix, NEQUIX), rank=0, alpha=1.0, key=jax.random.key(0))
