from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipdb import registry
from mlipdb.trainers.graph import AtomicGraph, Batch, Prediction, Targets
from mlipdb.trainers.heads_of_batch import split_heads
from mlipdb.trainers.losses import make_losses
from mlipdb.trainers.metrics import error_sums

NAMES = registry.names("mlipdb.losses")
COUNTS = (1, 2)  # atoms of the two graphs


def make_batch(*, atoms=5, graphs=4, rows=2, labelled=(True, True), periodic=(True, False), outlier=False):
    """Two graphs of one and two atoms, padded; labels are numbers drawn with one seed whatever the padding."""
    rng = np.random.default_rng(0)
    per_atom, per_graph = (lambda a: pad(a, atoms)), (lambda a: pad(a, graphs))
    graph = np.array([0, 1, 1])
    has = per_graph(np.array(labelled))
    hessian = rng.normal(size=(2, 3, 3))
    if outlier:
        hessian[0, 0] = 2e4
    zeros = np.zeros(4, np.int32)
    return Batch(
        AtomicGraph(
            atomic_numbers=per_atom(np.array([1, 1, 8], np.int32)),
            positions=per_atom(rng.normal(size=(3, 3)).astype(np.float32)),
            cell=per_graph(np.tile(np.eye(3, dtype=np.float32), (2, 1, 1))),
            senders=zeros,
            receivers=zeros,
            shifts=np.zeros((4, 3), np.float32),
            atom_graph=np.concatenate([graph, np.full(atoms - 3, graphs - 1)]).astype(np.int32),
            atom_mask=np.arange(atoms) < 3,
            edge_mask=np.zeros(4, bool),
            graph_mask=np.arange(graphs) < 2,
            periodic=per_graph(np.array(periodic)),
            atom_count=per_graph(np.array(COUNTS, np.int32)),
        ),
        Targets(
            energy=per_graph(rng.normal(size=2).astype(np.float32)),
            has_energy=has,
            forces=per_atom(rng.normal(size=(3, 3)).astype(np.float32)),
            has_forces=has,
            stress=per_graph(rng.normal(size=(2, 3, 3)).astype(np.float32)),
            has_stress=has,
            atomic_energies=per_atom(rng.normal(size=3).astype(np.float32)),
            has_atomic_energies=has,
            hessian_dofs=np.zeros((rows, graphs), np.int32),
            hessian_rows=np.stack([per_atom(row) for row in hessian]).astype(np.float32),
            # the first graph has both rows, the second the first one only
            has_hessian_row=np.stack([has, has & (np.arange(graphs) == 0)]),
        ),
    )


def on_device(batch):
    return jax.tree.map(jnp.asarray, batch)


def pad(array, length):
    padded = np.zeros((length, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def exact(batch):
    """A prediction equal to the labels, and Hessian rows equal to the teacher's."""
    t = batch.targets
    arrays = (t.energy, t.atomic_energies, t.forces, t.stress)
    return Prediction(*map(jnp.asarray, arrays)), jnp.asarray(t.hessian_rows)


def zero(batch):
    prediction, hessian = exact(batch)
    return jax.tree.map(jnp.zeros_like, prediction), jnp.zeros_like(hessian)


def value(name, prediction, batch):
    total, count = registry.load("mlipdb.losses", name)()(*prediction, on_device(batch))
    return float(total), float(count)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_zero_at_the_answer_and_so_is_its_gradient(name):
    batch = make_batch()
    loss = registry.load("mlipdb.losses", name)()
    with jax.debug_nans(True):
        gradient = jax.grad(lambda both: loss(*both, on_device(batch))[0])(exact(batch))
    assert value(name, exact(batch), batch)[0] == 0.0
    assert all(np.array_equal(leaf, np.zeros_like(leaf)) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_label_counts_neither_in_the_sum_nor_in_the_number(name):
    batch = make_batch(labelled=(True, False))
    wrong = jax.tree.map(lambda leaf: leaf + 1.0, exact(batch))
    hidden = make_batch(labelled=(True, False))
    for field in ("energy", "stress"):
        getattr(hidden.targets, field)[1] = 99.0
    hidden.targets.forces[1:] = 99.0
    assert value(name, wrong, batch) == value(name, wrong, hidden)
    assert value(name, wrong, batch)[1] < value(name, wrong, make_batch(periodic=(True, True)))[1]


@pytest.mark.parametrize("name", NAMES)
def test_without_any_label_the_loss_and_its_gradient_are_zero_not_nan(name):
    batch = make_batch(labelled=(False, False))
    losses = make_losses({name: 2.0})
    with jax.debug_nans(True):
        loss, gradient = jax.value_and_grad(lambda both: losses(*both, on_device(batch), total=lambda x: x)[0])(
            zero(batch)
        )
    assert float(loss) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    small, large = make_batch(), make_batch(atoms=9, graphs=7)
    assert value(name, zero(small), small) == pytest.approx(value(name, zero(large), large), rel=1e-6)


def test_energies_count_per_atom():
    batch = make_batch()
    expected = sum(abs(batch.targets.energy[:2]) / np.array(COUNTS))
    assert value("energy_mae", zero(batch), batch) == pytest.approx((expected, 2.0))


def test_forces_are_compared_by_the_length_of_the_difference():
    batch = make_batch()
    lengths = np.linalg.norm(batch.targets.forces[:3], axis=1).sum()
    assert value("forces_l2", zero(batch), batch) == pytest.approx((lengths, 3.0))
    assert value("forces_mae", zero(batch), batch) == pytest.approx((np.abs(batch.targets.forces[:3]).sum(), 9.0))


def test_huber_is_quadratic_near_zero_and_linear_far_away():
    batch = make_batch()
    (prediction, hessian), delta = exact(batch), 0.1
    near = Prediction(prediction.energy, prediction.atomic_energies, prediction.forces + 0.02, prediction.stress)
    far = Prediction(prediction.energy, prediction.atomic_energies, prediction.forces + 1.0, prediction.stress)
    assert value("forces_huber", (near, hessian), batch)[0] == pytest.approx(9 * 0.5 * 0.02**2, rel=1e-4)
    assert value("forces_huber", (far, hessian), batch)[0] == pytest.approx(9 * delta * (1.0 - delta / 2), rel=1e-4)


@pytest.mark.parametrize("name", ["energy_huber", "forces_huber", "stress_huber"])
def test_delta_of_huber_comes_from_the_recipe(name):
    [given] = make_losses({name: 2.0}, settings={name: {"delta": 0.01}}).terms
    [usual] = make_losses({name: 2.0}, settings={"other": {"delta": 0.01}}).terms
    assert (given.delta, usual.delta) == (0.01, 0.1)


def test_huber_of_energies_is_per_atom_and_that_of_stress_by_component():
    batch = make_batch()
    (prediction, hessian), delta = exact(batch), 0.1
    energy = prediction.energy + jnp.array([0.02, 2.0, 0.0, 0.0])  # 0.02 eV on one atom, 1 eV on each of two
    stress = prediction.stress + 0.02
    wrong = Prediction(energy, prediction.atomic_energies, prediction.forces, stress)
    expected = 0.5 * 0.02**2 + delta * (1.0 - delta / 2)
    assert value("energy_huber", (wrong, hessian), batch) == pytest.approx((expected, 2.0), rel=1e-4)
    assert value("stress_huber", (wrong, hessian), batch) == pytest.approx((9 * 0.5 * 0.02**2, 9.0), rel=1e-4)


def test_stress_counts_only_where_there_is_a_volume():
    batch = make_batch(periodic=(True, False))
    assert value("stress_mae", zero(batch), batch) == pytest.approx((np.abs(batch.targets.stress[0]).sum(), 9.0))


def test_hessian_rows_are_block_norms_averaged_over_the_rows_of_a_structure():
    batch = make_batch()
    norms = np.linalg.norm(batch.targets.hessian_rows, axis=2)
    first = (norms[0, 0] + norms[1, 0]) / 2  # one atom, two rows
    second = norms[0, 1] + norms[0, 2]  # two atoms, one row
    assert value("hessian_rows", zero(batch), batch) == pytest.approx((first + second, 3.0), rel=1e-6)


def test_a_hessian_row_beyond_1e4_hardly_counts():
    batch = make_batch(outlier=True)
    norms = np.linalg.norm(batch.targets.hessian_rows, axis=2)
    expected = norms[1, 0] / 2 + norms[0, 1] + norms[0, 2]
    assert value("hessian_rows", zero(batch), batch)[0] == pytest.approx(expected, abs=1e-3)


def test_the_loss_is_a_sum_over_a_count_so_that_ragged_halves_make_the_whole():
    whole = make_batch()
    halves = [make_batch(labelled=labelled) for labelled in ((True, False), (False, True))]
    losses = make_losses({"energy_mae": 2.0, "forces_l2": 3.0, "stress_mae": 0.0})
    assert losses.names == ("energy_mae", "forces_l2")
    together = losses(*zero(whole), on_device(whole), total=lambda x: x)[0]
    totals = iter([2.0, 3.0, 2.0, 3.0])  # graphs and atoms of both halves, as psum would give them
    apart = sum(losses(*zero(half), on_device(half), total=lambda _: next(totals))[0] for half in halves)
    assert float(apart) == pytest.approx(float(together), rel=1e-6)


def headed(batch, *heads):
    """The batch whose graphs are of these heads, the padding of the first."""
    head = np.zeros(len(batch.graph.graph_mask), np.int32)
    head[: len(heads)] = heads
    return Batch(replace(batch.graph, head=head), batch.targets)


def loss_and_gradient(batch, *, weight, wrong=0.5):
    """Of losses of every kind, at predictions that are off by `wrong`."""
    losses = make_losses({"energy_mae": 2.0, "forces_l2": 3.0, "hessian_rows": 0.1}, replay_weight=weight)
    moved = jax.tree.map(lambda leaf: leaf + wrong, exact(batch))
    both = jax.value_and_grad(lambda both: losses(*both, on_device(batch), total=lambda x: x)[0])(moved)
    return float(both[0]), both[1]


def test_the_loss_is_the_mean_of_the_targets_graphs_and_replay_weight_times_that_of_the_replays():
    batch = make_batch()
    only = [make_batch(labelled=labelled) for labelled in ((True, False), (False, True))]
    first, second = (loss_and_gradient(each, weight=1.0)[0] for each in only)
    assert first != second
    for weight in (0.0, 1.0, 2.5):
        found, _ = loss_and_gradient(headed(batch, 0, 1), weight=weight)
        assert found == pytest.approx(first + weight * second, rel=1e-6)


def test_the_replay_weight_scales_the_gradient_of_the_replays_graphs_alone():
    batch = headed(make_batch(), 0, 1)
    _, once = loss_and_gradient(batch, weight=1.0)
    _, thrice = loss_and_gradient(batch, weight=3.0)
    forces, other = (np.asarray(gradient[0].forces) for gradient in (once, thrice))
    assert np.array_equal(forces[0], other[0])
    np.testing.assert_allclose(3.0 * forces[1:3], other[1:3], rtol=1e-6)
    assert np.abs(forces[1:3]).min() > 0


def test_terms_and_errors_of_the_replay_are_apart():
    batch = on_device(headed(make_batch(), 0, 1))
    losses = make_losses({"energy_mae": 2.0, "forces_l2": 3.0})
    _, terms = losses(*zero(batch), batch, total=lambda x: x)
    target, replayed = split_heads(terms)
    energies = np.abs(np.asarray(batch.targets.energy[:2])) / COUNTS
    assert [float(target["energy_mae"][0]), float(replayed["energy_mae"][0])] == pytest.approx(energies.tolist())
    assert [float(each["energy_mae"][1]) for each in (target, replayed)] == [1.0, 1.0]
    own, others = split_heads(error_sums(zero(batch)[0], batch))
    assert (float(own["forces"][2]), float(others["forces"][2])) == (3.0, 6.0)


def test_a_batch_without_graphs_of_one_head_learns_from_the_other_alone():
    batch = headed(make_batch(), 1, 1)
    found, gradient = loss_and_gradient(batch, weight=2.0)
    assert found == pytest.approx(2.0 * loss_and_gradient(make_batch(), weight=1.0)[0])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
