"""Steps that change a part of a model only, and what the rest of it keeps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipdb.structures import make_structure
from mlipdb.testing.training import tiny_nequix
from mlipdb.trainers.arrays import arrays_like, named_arrays
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import needed_shape, pad_graph
from mlipdb.trainers.checkpoint import load_model, save_model
from mlipdb.trainers.graph import Batch, Targets
from mlipdb.trainers.losses import make_losses
from mlipdb.trainers.models.heads import Head, with_heads
from mlipdb.trainers.models.lora import adapt, effective
from mlipdb.trainers.models.nequix import Nequix
from mlipdb.trainers.optimizer import make_optimizer
from mlipdb.trainers.recipe import OptimizerRecipe
from mlipdb.trainers.step import gradient_and_outcome, initial_state, make_train_step

pytestmark = pytest.mark.usefixtures("quick_programs")

MODEL = Nequix.create(
    tiny_nequix((1, 8), (-1.0, -2.0), hidden_irreps="8x0e", lmax=0),  # each test compiles a step of it
    key=jax.random.key(1),
)
WATER = make_structure([8, 1, 1], [[0, 0, 0], [0.98, 0.1, 0], [-0.2, 0.95, 0.15]])
OXYGEN = make_structure([8, 8], [[0, 0, 0], [1.3, 0.1, 0]])
LOSSES = make_losses({"energy_mae": 1.0, "forces_l2": 1.0})


def batch(*, heads=None):
    """Two molecules with forces and energies that the model does not predict."""
    structures = [WATER, OXYGEN]
    lists = [neighbours(structure, MODEL.cutoff) for structure in structures]
    graph = pad_graph(structures, lists, shape=needed_shape(structures, lists))
    head = None if heads is None else np.array([*heads, 0], np.int32)
    rng, graphs, atoms = np.random.default_rng(0), 3, len(graph.atom_mask)
    has = np.array([True, True, False])
    targets = Targets(
        energy=np.where(has, rng.normal(size=graphs), 0).astype(np.float32),
        has_energy=has,
        forces=np.where(graph.atom_mask[:, None], rng.normal(size=(atoms, 3)), 0).astype(np.float32),
        has_forces=has,
        stress=np.zeros((graphs, 3, 3), np.float32),
        has_stress=np.zeros(graphs, bool),
        atomic_energies=np.zeros(atoms, np.float32),
        has_atomic_energies=np.zeros(graphs, bool),
        hessian_dofs=np.zeros((0, graphs), np.int32),
        hessian_rows=np.zeros((0, atoms, 3), np.float32),
        has_hessian_row=np.zeros((0, graphs), bool),
    )
    return jax.tree.map(jnp.asarray, Batch(dataclasses.replace(graph, head=head), targets))


def trained(model, *, steps, learns=("*",), heads=None, name="muon", decay=0.9):
    """The state after so many steps on one batch, and the losses."""
    optimizer = make_optimizer(OptimizerRecipe(name=name, weight_decay=0.1))
    step = make_train_step(optimizer, ema_decay=decay, learns=learns)
    state, inputs, seen = initial_state(model, optimizer, learns), batch(heads=heads), []
    for _ in range(steps):
        state, outcome = step((inputs, jnp.float32(1e-3), LOSSES), state)
        assert bool(outcome.finite)
        seen.append(float(outcome.loss))
    return state, seen


def bits(tree):
    return {name: array.tobytes() for name, array in named_arrays(tree).items()}


def optimizer_bytes(state):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state.optimizer))


PARTS = {
    "freeze-conv": (*MODEL.readout_arrays, *MODEL.gain_arrays),
    "freeze-backbone": (*MODEL.readout_arrays, *MODEL.last_layer_arrays),
}


@pytest.mark.parametrize("name", ["muon", "adamw"])
@pytest.mark.parametrize("learns", PARTS.values(), ids=PARTS.keys())
def test_frozen_arrays_keep_every_bit_in_a_hundred_steps_and_the_others_move(learns, name):
    state, losses = trained(MODEL, steps=100, learns=learns, name=name)
    flags = dict(zip(named_arrays(MODEL), jax.tree.leaves(arrays_like(MODEL, learns)), strict=True))
    before = bits(MODEL)
    for model in (state.model, state.averaged_model):
        after = bits(model)
        assert {key for key in before if before[key] != after[key]} == {key for key, one in flags.items() if one}
    assert 0 < sum(flags.values()) < len(flags)
    assert losses[-1] < losses[0]


def test_averages_and_the_state_of_the_optimiser_are_of_what_learns_only():
    whole, _ = trained(MODEL, steps=1)
    part, _ = trained(MODEL, steps=1, learns=("readout",))
    assert list(named_arrays(part.average)) == ["readout"]
    assert optimizer_bytes(part) < 0.05 * optimizer_bytes(whole)


def test_low_rank_changes_leave_the_model_s_own_arrays_bit_for_bit_and_learn():
    adapted = adapt(MODEL, rank=2, alpha=1.0, key=jax.random.key(0))
    state, losses = trained(adapted, steps=20)
    assert bits(state.model.base) == bits(state.averaged_model.base) == bits(MODEL)
    assert losses[-1] < 0.995 * losses[0]
    moved = [name for name, one in state.model.factors.items() if np.asarray(one.lora_out).any()]
    assert set(moved) == set(adapted.factors)
    assert all(bits(effective(state.model))[name] != bits(MODEL)[name] for name in moved)


def test_the_first_step_of_low_rank_changes_has_the_loss_of_the_model():
    adapted = adapt(MODEL, rank=2, alpha=1.0, key=jax.random.key(0))
    assert bits(effective(adapted)) == bits(MODEL)
    # not compiled: the compiler orders sums of two programs as it likes
    theirs, own = (gradient_and_outcome(model, batch(), losses=LOSSES)[1].loss for model in (adapted, MODEL))
    assert float(theirs) == float(own) > 0


def test_low_rank_changes_are_moved_as_by_adam_and_not_orthogonalised():
    state, _ = trained(adapt(MODEL, rank=2, alpha=1.0, key=jax.random.key(0)), steps=1)
    for one in state.model.factors.values():
        moved = np.abs(np.asarray(one.lora_out))
        # Adam's first step with Nesterov's average, whatever the gradient: (0.9·0.1/(1 - 0.9²) + 1) times the rate
        assert np.median(moved) == pytest.approx(1.474e-3, rel=0.02)


def test_low_rank_changes_need_less_state_than_the_whole_model():
    wide = Nequix.create(dataclasses.replace(MODEL.config, hidden_irreps="48x0e"), key=jax.random.key(0))
    optimizer = make_optimizer(OptimizerRecipe())
    whole = initial_state(wide, optimizer)
    low = initial_state(adapt(wide, rank=1, alpha=1.0, key=jax.random.key(0)), optimizer)
    assert optimizer_bytes(low) < 0.5 * optimizer_bytes(whole)


def two_heads():
    return with_heads(MODEL, [Head(name="target"), Head(name="foundation")])


def test_training_one_head_leaves_the_readout_of_the_other_bit_for_bit():
    state, _ = trained(two_heads(), steps=5, heads=(0, 0), learns=("shared*", "readouts[0]*"))
    before, after = bits(two_heads()), bits(state.model)
    changed = {name for name in before if before[name] != after[name]}
    assert "readouts[0].readout" in changed
    assert "readouts[1].readout" not in changed
    assert any(name.startswith("shared") for name in changed)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_two_heads_that_started_alike_differ_after_training(name):
    state, _ = trained(two_heads(), steps=5, heads=(0, 1), name=name)
    first, second = (np.asarray(one.readout) for one in state.model.readouts)
    assert not np.allclose(first, second, atol=1e-4)
    assert not np.allclose(first, MODEL.readout, atol=1e-4)


def test_a_trained_pair_of_heads_comes_back_from_a_checkpoint_head_by_head(tmp_path):
    model = trained(two_heads(), steps=2, heads=(0, 1))[0].averaged_model
    save_model(tmp_path / "saved", model, name="headed")
    for place, name in enumerate(("target", "foundation")):
        assert bits(load_model(f"{tmp_path / 'saved'}@{name}")) == bits(model.single(place))
    assert bits(load_model(tmp_path / "saved")) == bits(model.single(0))
