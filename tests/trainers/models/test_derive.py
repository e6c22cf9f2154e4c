"""Of a model so simple that everything is known by hand: forces that are no gradient."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipdb.structures import make_structure
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import GraphShape, pad_graph
from mlipdb.trainers.graph import GraphNeeds
from mlipdb.trainers.models.base import AbstractDirectModel, AbstractModel, DirectOutputs
from mlipdb.trainers.models.derive import edge_vectors, gives_stress, hessian_rows, predict, predict_with_rows


class Blank(AbstractModel):
    """Neither conservative nor direct."""

    strength: jax.Array

    cutoff = property(lambda self: 2.0)
    graph_needs = property(lambda self: GraphNeeds())
    atomic_numbers = property(lambda self: (1, 8))
    e0 = property(lambda self: np.zeros(2))

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(jnp.zeros(()))


class Pull(AbstractDirectModel):
    """Oxygen is pulled by strength times the vector to each neighbour; nothing pulls hydrogen back."""

    strength: jax.Array

    cutoff = property(lambda self: 2.0)
    graph_needs = property(lambda self: GraphNeeds())
    atomic_numbers = property(lambda self: (1, 8))
    e0 = property(lambda self: np.zeros(2))

    def __call__(self, graph, edge_vectors):
        oxygen = (graph.atomic_numbers[graph.receivers] == 8) & graph.edge_mask
        pulls = jnp.where(oxygen[:, None], self.strength * edge_vectors, 0.0)
        forces = jax.ops.segment_sum(pulls, graph.receivers, len(graph.atom_mask))
        # what a model says of padding must not be seen
        return DirectOutputs(jnp.ones(len(graph.atom_mask)), jnp.where(graph.atom_mask[:, None], forces, 7.0))

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(jnp.zeros(()))


WATER = make_structure([8, 1, 1], [[0, 0, 0], [0.98, 0, 0], [0, 0.95, 0]])
HYDROGEN = make_structure([1], [[0, 0, 0]])
MODEL = Pull(jnp.asarray(3.0))


def padded(*structures):
    lists = [neighbours(structure, 2.0) for structure in structures]
    graph = pad_graph(structures, lists, shape=GraphShape(8, 20, len(structures) + 2))
    return jax.tree.map(jnp.asarray, graph)


def test_a_direct_model_s_forces_are_its_own_and_it_has_no_stress():
    found = predict(MODEL, padded(WATER, HYDROGEN))
    np.testing.assert_allclose(found.forces[0], [3 * 0.98, 3 * 0.95, 0], rtol=1e-6)
    assert not found.forces[1:].any()
    np.testing.assert_array_equal(found.energy, [3, 1, 0, 0])
    assert not found.has_stress
    assert not found.stress.any()
    assert not gives_stress(MODEL)


def test_a_row_is_minus_the_change_of_one_force_component():
    # F_Ox = 3·(x₁ - x₀ + x₂ - x₀), so the row of O's x is 6 at O and -3 at each H; no force on H, so no row
    rows = hessian_rows(MODEL, padded(WATER, HYDROGEN), jnp.asarray([[0, 9, -1, -1], [3, -1, -1, -1]]))
    expected = np.zeros((2, 8, 3))
    expected[0, :3, 0] = [6, -3, -3]
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_rows_are_the_same_however_many_are_computed_at_once():
    graph, dofs = padded(WATER), jnp.asarray([[0, -1, -1], [1, -1, -1], [2, -1, -1]])
    alone, together = (predict_with_rows(MODEL, graph, dofs, rows_at_once=count) for count in (1, 3))
    jax.tree.map(np.testing.assert_array_equal, alone, together)
    jax.tree.map(np.testing.assert_array_equal, alone, predict_with_rows(MODEL, graph, dofs, written_out=True))


def test_a_loss_of_rows_reaches_the_weights():
    def squares(model):
        return (hessian_rows(model, padded(WATER), jnp.asarray([[0, -1, -1]])) ** 2).sum()

    # Σ of (2s, -s, -s)² is 6·s², its derivative 12·s
    assert float(eqx.filter_grad(squares)(MODEL).strength) == pytest.approx(36.0)


def test_a_model_of_neither_kind_is_refused_by_name():
    with pytest.raises(TypeError, match="Blank is neither"):
        predict(Blank(jnp.zeros(())), padded(WATER))


def test_edge_vectors_of_padding_are_zero():
    graph = padded(WATER)
    assert not edge_vectors(graph)[~graph.edge_mask].any()
