import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipdb.errors import ConfigError, TrainError
from mlipdb.structures import make_structure
from mlipdb.testing.models import DirectModelConformance, Made, ModelConformance, made, quick
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import needed_shape, pad_graph
from mlipdb.trainers.models.derive import edge_vectors, predict
from mlipdb.trainers.models.painn import Painn, PainnConservative
from mlipdb.trainers.models.painn_config import PAPER_FACTORS, PainnConfig
from mlipdb.trainers.models.painn_network import run

CONFIG = PainnConfig(
    atomic_numbers=(1, 8, 14),
    e0=(-1.0, -2.0, -3.0),
    direct=True,
    cutoff=3.0,
    max_neighbours=9,
    n_layers=2,
    hidden_size=4,
    n_radial=5,
    scale=0.8,
    shift=0.1,
    scale_factors=(1.2, 1.3),
)
SMOOTH = dataclasses.replace(CONFIG, direct=False, smooth_messages=True)
CRYSTAL = make_structure(
    [14, 8], [[0.05, 0.1, -0.1], [1.6, 1.35, 1.5]], cell=[[3.1, 0.2, 0], [0, 3.0, 0.4], [0.3, 0, 3.3]], pbc=(True,) * 3
)
ONE_ATOM = make_structure([14], [[0.3, 0.2, 0.1]], cell=[[2.3, 0.2, 0], [0, 2.5, 0.4], [0.3, 0, 2.4]], pbc=(True,) * 3)
MOLECULE = make_structure([8, 1, 1], [[0, 0, 0], [0.98, 0.1, 0], [-0.2, 0.95, 0.15]])
SLAB = make_structure([14, 14], [[0, 0, 0], [1.5, 1.4, 0.8]], cell=np.diag([3.0, 2.9, 0]), pbc=(True, True, False))


def with_biases(model, key):
    """Biases start at 0, which would hide what they do."""
    leaves, structure = jax.tree.flatten(model)
    keys = jax.random.split(key, len(leaves))
    changed = [a + 0.2 * jax.random.normal(k, a.shape) if a.ndim == 1 else a for a, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, changed)


def graph_of(*structures, config=CONFIG):
    needs = made(Painn, config).graph_needs
    lists = [neighbours(structure, config.cutoff, needs=needs) for structure in structures]
    shape = needed_shape(structures, lists)
    return jax.tree.map(jnp.asarray, pad_graph(structures, lists, shape=shape))


class TestPainn(DirectModelConformance):
    model = Made(lambda: with_biases(made(Painn, CONFIG), jax.random.key(2)))
    structures = (CRYSTAL, ONE_ATOM, MOLECULE, SLAB)
    smooth_cutoff = False


class TestSmoothConservativePainn(ModelConformance):
    model = Made(lambda: with_biases(made(PainnConservative, SMOOTH, seed=3), jax.random.key(4)))
    structures = (CRYSTAL, ONE_ATOM, MOLECULE)
    cutoff_tolerance = 1e-3


@pytest.mark.parametrize(("model", "direct", "count"), [(Painn, True, 1_029_635), (PainnConservative, False, 943_105)])
def test_the_paper_s_settings_have_the_paper_s_number_of_parameters(model, direct, count):
    # 83 elements; the two gated blocks of the forces are the difference, 73,984 + 12,546
    config = PainnConfig(atomic_numbers=tuple(range(1, 84)), e0=(0.0,) * 83, direct=direct)
    shapes = jax.eval_shape(lambda: model.create(config, key=jax.random.key(0)).network)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert config.factors == PAPER_FACTORS


def test_a_force_of_an_inversion_centre_is_zero_and_its_derivatives_are_finite():
    salt = make_structure([14, 8], [[0, 0, 0], [1.3] * 3], cell=2.6 * np.eye(3), pbc=(True,) * 3)
    forces = quick(predict)(made(Painn, CONFIG, seed=5), graph_of(salt)).forces
    np.testing.assert_allclose(forces, 0, atol=1e-5)


def test_forces_are_no_gradient_so_rows_are_not_columns():
    model = with_biases(made(Painn, CONFIG, seed=6), jax.random.key(7))
    graph = graph_of(MOLECULE)

    def forces(positions):
        moved = dataclasses.replace(graph, positions=positions)
        return predict(model, moved).forces

    matrix = np.asarray(quick(jax.jacobian(forces))(graph.positions))[:3, :, :3].reshape(9, 9)
    assert np.abs(matrix - matrix.T).max() > 0.01 * np.abs(matrix).max()


def test_a_model_whose_factors_are_unset_is_refused_and_fitting_gives_each_layer_variance_one():
    config = dataclasses.replace(CONFIG, scale_factors="fit")
    model = made(Painn, config, seed=8)
    graphs = [graph_of(CRYSTAL, MOLECULE), graph_of(SLAB, ONE_ATOM)]
    assert not model.is_fitted
    with pytest.raises(TrainError, match="scale factors of this PaiNN are unset"):
        predict(model, graphs[0])
    fitted = model.fitted(graphs)
    assert fitted.is_fitted
    factors = fitted.config.factors
    network, settings = fitted.network, {"config": fitted.config, "factors": factors}
    variances = quick(lambda graph: run(network, graph, edge_vectors(graph), **settings).variances)
    scaled = np.mean([variances(graph) for graph in graphs], axis=0) * np.square(factors)
    np.testing.assert_allclose(scaled, 1.0, rtol=1e-4)
    again = Painn.from_config(fitted.to_config())
    assert again.config == fitted.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_factors": [1.0]}, "has 1 values for 2 layers"),
        ({"scale_factors": [1.0, 0.0]}, "numbers above 0"),
        ({"scale_factors": "paper"}, "not right for n_layers = 2"),
        ({"scale_factors": "papr"}, "'paper'"),
        ({"max_neighbours": 0}, "max_neighbours must be 1 or more"),
        ({"hidden_size": 5}, "even"),
        ({"hiden_size": 8}, "hidden_size"),
        ({"direct": False}, "no setting 'direct'"),
    ],
)
def test_a_bad_setting_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        Painn.from_config({**made(Painn, CONFIG).to_config(), **changes})


def test_a_direct_configuration_makes_no_conservative_model():
    with pytest.raises(ConfigError, match="direct = True"):
        PainnConservative.create(CONFIG, key=jax.random.key(0))
