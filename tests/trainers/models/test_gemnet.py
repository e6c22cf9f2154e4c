import dataclasses
import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import legendre

from mlipdb.errors import ConfigError, TrainError
from mlipdb.structures import make_structure
from mlipdb.testing.models import quick
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import GraphShape, pad_graph
from mlipdb.trainers.batching.triplets import pad_triplets
from mlipdb.trainers.checkpoint import load_model, save_model
from mlipdb.trainers.graph import GraphNeeds
from mlipdb.trainers.models.derive import edge_vectors
from mlipdb.trainers.models.edges import lengths_and_directions, spherical_harmonics
from mlipdb.trainers.models.gemnet import GemNetDT, GemNetT
from mlipdb.trainers.models.gemnet_config import (
    CONSERVATIVE_FACTORS,
    DIRECT_FACTORS,
    GemNetConfig,
    ScaleFactors,
    config_from_json,
)
from mlipdb.trainers.models.gemnet_factors import fit_scale_factors
from mlipdb.trainers.models.gemnet_layers import he_orthogonal
from mlipdb.trainers.models.gemnet_network import _angular_sums, observed

SMALL = {
    "atomic_numbers": (8, 14),
    "e0": (-1.0, -2.0),
    "cutoff": 3.2,
    "n_blocks": 2,
    "n_spherical": 3,
    "n_radial": 3,
    "atom_size": 5,
    "edge_size": 4,
    "triplet_size": 3,
    "rbf_size": 2,
    "cbf_size": 2,
    "bilinear_size": 3,
    "n_atom": 1,
    "scale": 0.8,
    "shift": 0.1,
}
FACTORS = ScaleFactors(
    triplet_radial=(1.3, 0.8),
    triplet_sum=(1.1, 1.7),
    atom_sum=(0.7, 0.6),
    energy_sum=(0.9, 1.2, 0.5),
    force_radial=(1.4, 0.9, 2.0),
)
# One atom in a cell smaller than the cutoff, so that it is its own neighbour by many images; and two atoms.
LONELY_CELL = make_structure([14], [[0, 0, 0]], cell=[[2.3, 0.1, 0], [0, 2.5, 0.2], [0.3, 0, 2.7]], pbc=(True,) * 3)
CRYSTAL = make_structure(
    [14, 8], [[0.05, 0.1, -0.1], [1.6, 1.35, 1.5]], cell=[[3.1, 0.2, 0], [0, 3.0, 0.4], [0.3, 0, 3.3]], pbc=(True,) * 3
)
ISOLATED = make_structure([8], [[0.0, 0.0, 0.0]])


def small_config(*, direct, **changes):
    return GemNetConfig(**{**SMALL, "direct": direct, **changes})


def fixed_factors(*, direct):
    return FACTORS if direct else dataclasses.replace(FACTORS, force_radial=())


def loud_factors(*, direct):
    """So large that every part of the network is heard in the energies."""
    return ScaleFactors(
        **{name: tuple(5 * value for value in values) for name, values in fixed_factors(direct=direct).items()}
    )


def graph_of(*structures, config):
    """All in one shape, so that little is compiled."""
    needs = GraphNeeds(max_neighbours=config.max_neighbours, symmetric=True)
    lists = [neighbours(structure, config.cutoff, needs=needs) for structure in structures]
    return pad_graph(structures, lists, shape=GraphShape(7, 150, 4))


def silu(values):
    return values / (1 + np.exp(-values)) / 0.6


def reference(network, graph, *, config, factors):
    """Energies and forces in numpy, edge by edge and triplet by triplet, as the paper's equations have it."""
    arrays = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network)
    real = np.flatnonzero(graph.edge_mask)
    cell = np.asarray(graph.cell, np.float64)[graph.atom_graph[graph.receivers]]
    r = graph.positions[graph.senders].astype(float) - graph.positions[graph.receivers]
    r = (r + np.einsum("ei,eij->ej", graph.shifts.astype(float), cell))[real]
    s, t, swap = graph.senders[real], graph.receivers[real], graph.reverse[real]
    d = np.linalg.norm(r, axis=1)
    v, x = r / d[:, None], d / config.cutoff
    p = config.envelope_exponent
    envelope = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    centres = np.linspace(0, 1, config.n_radial)
    rbf = envelope[:, None] * np.exp(-0.5 * ((x[:, None] - centres) / (centres[1] - centres[0])) ** 2)
    cbf = np.einsum("er,lrc->elc", rbf, arrays.circular)

    def onto(values):
        total = np.zeros((len(graph.atom_mask), *values.shape[1:]))
        np.add.at(total, t, values)
        return total

    def mlp(values, layers):
        if layers.first is not None:
            values = silu(values @ layers.first)
        for a, b in layers.residuals:
            values = (values + silu(silu(values @ a) @ b)) / math.sqrt(2)
        return values

    def output(place):
        parts = arrays.outputs[place]
        radial = rbf @ arrays.output_radial
        energy = onto(m * (radial @ parts.energy.radial)) * factors.energy_sum[place]
        energy = (mlp(energy, parts.energy.mlp) @ parts.energy.last)[:, 0]
        if parts.forces is None:
            return energy, 0.0
        force = mlp(m, parts.forces.mlp) * (radial @ parts.forces.radial) * factors.force_radial[place]
        return energy, (force @ parts.forces.last)[:, 0]

    h = arrays.embedding[np.searchsorted(config.atomic_numbers, graph.atomic_numbers.clip(8))]
    m = silu(np.concatenate([h[s], h[t], rbf], axis=1) @ arrays.edge)
    energies, along = output(0)
    for i, block in enumerate(arrays.blocks):
        y = silu(m @ block.sent) * (rbf @ arrays.triplet_radial @ block.sent_radial) * factors.triplet_radial[i]
        y = silu(y @ block.down)
        found = np.zeros((len(real), config.bilinear_size))
        for ca in range(len(real)):
            others = [ba for ba in range(len(real)) if t[ba] == t[ca] and ba != ca]
            sums = np.zeros((config.n_spherical, config.triplet_size))
            for ba in others:
                for degree in range(config.n_spherical):
                    polynomial = legendre.legval(v[ca] @ v[ba], np.eye(config.n_spherical)[degree])
                    sums[degree] += math.sqrt((2 * degree + 1) / (4 * math.pi)) * polynomial * y[ba]
            found[ca] = np.einsum("lt,lc,tcb->b", sums, cbf[ca], block.bilinear)
        found = found * factors.triplet_sum[i]
        triplets = (silu(found @ block.up) + silu(found @ block.up_reverse)[swap]) / math.sqrt(2)
        x = mlp((silu(m @ block.skip) + triplets) / math.sqrt(2), block.before_skip)
        m = mlp((m + x) / math.sqrt(2), block.after_skip)
        summed = onto(m * (rbf @ arrays.atom_radial @ block.atom_radial)) * factors.atom_sum[i]
        h = (h + mlp(summed, block.atom)) / math.sqrt(2)
        m2 = mlp(silu(np.concatenate([h[s], h[t], m], axis=1) @ block.joined), block.concatenated)
        m = (m + m2) / math.sqrt(2)
        more, more_along = output(i + 1)
        energies, along = energies + more, along + more_along
    forces = config.scale * onto(np.reshape(along, (-1, 1)) * v) if config.direct else None
    return np.where(graph.atom_mask, config.scale * energies + config.shift, 0.0), forces


@pytest.mark.parametrize("model_class", [GemNetDT, GemNetT])
def test_it_is_the_network_of_the_paper_written_out_triplet_by_triplet(model_class):
    direct = model_class is GemNetDT
    factors = loud_factors(direct=direct)
    config = small_config(direct=direct, cutoff=4.5, scale_factors=factors)
    model = model_class.create(config, key=jax.random.key(3))
    graph = graph_of(LONELY_CELL, CRYSTAL, ISOLATED, config=config)
    evaluate = quick(lambda arrays: model(arrays, edge_vectors(arrays)))
    found = evaluate(jax.tree.map(jnp.asarray, graph))
    energies, forces = reference(model.network, graph, config=config, factors=factors)
    np.testing.assert_allclose(found.atomic_energies if direct else found, energies, atol=2e-5)
    without = dataclasses.replace(factors, triplet_sum=(1e-9, 1e-9))
    assert np.abs(reference(model.network, graph, config=config, factors=without)[0] - energies)[:3].min() > 1e-3
    if direct:
        assert np.abs(forces).max() > 0.1
        np.testing.assert_allclose(found.forces, forces, atol=2e-5)


@pytest.mark.parametrize(("model_class", "parameters"), [(GemNetDT, 672_896), (GemNetT, 565_056)])
def test_the_papers_settings_have_the_papers_number_of_parameters(model_class, parameters):
    # For 83 elements; counted in the paper's code.
    facts = {"atomic_numbers": list(range(1, 84)), "e0": [0.0] * 83}
    model = model_class.from_config(facts)
    assert sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))) == parameters
    assert model.config.factors == (DIRECT_FACTORS if model_class is GemNetDT else CONSERVATIVE_FACTORS)


def test_angles_are_summed_as_over_a_list_of_triplets():
    config = small_config(direct=False, n_spherical=7)
    graph = graph_of(LONELY_CELL, CRYSTAL, config=config)
    real = int(graph.edge_mask.sum())
    triplets = pad_triplets(graph.receivers[:real], edges=len(graph.edge_mask), length=real * real)
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf, graph)
        _, directions = lengths_and_directions(edge_vectors(jax.tree.map(jnp.asarray, exact)))
        sent = np.random.default_rng(0).normal(size=(len(graph.edge_mask), 3)) * graph.edge_mask[:, None]
        harmonics = tuple(spherical_harmonics(directions, lmax=6))
        found = _angular_sums(jnp.asarray(sent), harmonics, jnp.asarray(graph.receivers), jnp.asarray(graph.atom_mask))
    pairs = [(i, o) for i, o, real in zip(triplets.edge_in, triplets.edge_out, triplets.mask, strict=True) if real]
    expected = np.zeros((real, 7, 3))
    for edge_in, edge_out in pairs:
        polynomials = legendre.legvander(np.dot(directions[edge_in], directions[edge_out]), 6)
        weights = np.sqrt((2 * np.arange(7) + 1) / (4 * np.pi)) * polynomials.reshape(-1)
        expected[edge_out] += weights[:, None] * sent[edge_in]
    np.testing.assert_allclose(found[:real], expected, atol=1e-12 * np.abs(expected).max() * 100)


def test_a_supercell_keeps_the_same_nearest_neighbours():
    # Of one atom with five neighbours; the third pair of images is as far as its half, so that six are kept.
    config = small_config(direct=False, cutoff=4.5, max_neighbours=5, scale_factors=loud_factors(direct=False))
    model = GemNetT.create(config, key=jax.random.key(4))
    double = make_structure(
        [14, 14],
        np.concatenate([LONELY_CELL.positions, LONELY_CELL.positions + LONELY_CELL.cell[0]]),
        cell=LONELY_CELL.cell * np.array([[2.0], [1.0], [1.0]]),
        pbc=(True,) * 3,
    )
    graph = graph_of(LONELY_CELL, double, config=config)
    assert np.bincount(graph.receivers[graph.edge_mask]).tolist() == [6, 6, 6]
    evaluate = quick(lambda arrays: model(arrays, edge_vectors(arrays)))
    energies = evaluate(jax.tree.map(jnp.asarray, graph))
    assert abs(energies[0]) > 0.2
    np.testing.assert_allclose(energies[1:3], energies[0], rtol=1e-5)


def test_matrices_start_with_the_variance_that_keeps_activations():
    matrix = np.asarray(he_orthogonal(jax.random.key(0), (48, 20)))
    np.testing.assert_allclose(matrix.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(matrix.var(axis=0, ddof=1), 1 / 48, rtol=1e-3)
    product = np.asarray(he_orthogonal(jax.random.key(1), (7, 6, 16)))
    np.testing.assert_allclose(product.var(axis=(0, 1), ddof=1), 1 / 42, rtol=1e-3)


@pytest.mark.parametrize("model_class", [GemNetDT, GemNetT])
def test_fitted_factors_keep_the_variance_of_everything_that_they_scale(model_class):
    config = small_config(direct=model_class is GemNetDT)
    model = model_class.create(config, key=jax.random.key(5))
    graphs = [graph_of(LONELY_CELL, CRYSTAL, ISOLATED, config=config), graph_of(CRYSTAL, config=config)]
    fitted = model.fitted(graphs)
    factors = fitted.config.factors
    given = {name: jnp.asarray(values, jnp.float32) for name, values in factors.items() if values}

    @quick
    def moments(graph):
        return observed(model.network, graph, edge_vectors(graph), config=config, factors=given)

    found = [jax.device_get(moments(jax.tree.map(jnp.asarray, graph))) for graph in graphs]
    assert found[0].keys() == given.keys()
    for name, values in given.items():
        before, after = (np.mean([one[name][side] for one in found], axis=0) for side in (0, 1))
        np.testing.assert_allclose(np.square(values) * after, before, rtol=1e-4, err_msg=name)
    assert fitted.is_fitted
    assert len({round(value, 3) for _, values in factors.items() for value in values}) > 8
    assert fitted.to_config()["scale_factors"]["atom_sum"] == list(factors.atom_sum)


def test_unset_factors_are_refused_and_never_one():
    config = small_config(direct=False)
    model = GemNetT.create(config, key=jax.random.key(0))
    graph = jax.tree.map(jnp.asarray, graph_of(CRYSTAL, config=config))
    assert not model.is_fitted
    with pytest.raises(TrainError, match=r"scale factors .* unset.*fitted\(graphs\)"):
        model(graph, edge_vectors(graph))


def test_factors_cannot_be_fitted_on_atoms_without_neighbours():
    config = small_config(direct=True)
    model = GemNetDT.create(config, key=jax.random.key(0))
    with pytest.raises(TrainError, match=r"energy_sum\[0\] cannot be fitted"):
        fit_scale_factors(model.network, [graph_of(ISOLATED, config=config)], config=config)


def test_the_papers_factors_are_for_the_papers_sizes_only():
    blank = {"atomic_numbers": [1], "e0": [0.0]}
    assert config_from_json({**blank, "scale_factors": "fit"}, direct=True).factors is None
    assert config_from_json({**blank, "cutoff": 5.0}, direct=True).factors == DIRECT_FACTORS
    assert config_from_json({**blank, "edge_size": 32}, direct=True).factors is None
    with pytest.raises(ConfigError, match="not right for edge_size = 32; set scale_factors to 'fit'"):
        config_from_json({**blank, "edge_size": 32, "scale_factors": "paper"}, direct=True)


@pytest.mark.parametrize("factors", [fixed_factors(direct=True), "fit"], ids=["numbers", "fit"])
def test_a_config_passes_through_json(factors):
    model = GemNetDT.create(small_config(direct=True, scale_factors=factors), key=jax.random.key(0))
    again = GemNetDT.from_config(json.loads(json.dumps(model.to_config())))
    assert again.config == model.config
    assert jax.tree.structure(again) == jax.tree.structure(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_block": 2}, "gemnet-t has no setting 'n_block'. Did you mean 'n_blocks'"),
        ({"direct": True}, "gemnet-t has no setting 'direct'"),
        ({"edge_size": 0}, "edge_size must be 2 or more; got 0"),
        ({"cutoff": -1.0}, "cutoff must be above 0"),
        ({"e0": []}, "e0 has 0 values for 1 elements"),
        ({"atomic_numbers": [8, 1]}, "must ascend"),
        ({"scale_factors": "papers"}, "must be 'paper', 'fit' or a table of numbers. Did you mean 'paper'"),
        ({"scale_factors": {"triplet_sums": []}}, "Did you mean 'triplet_sum'"),
        ({"scale_factors": {"triplet_sum": [1.0]}}, "lacks atom_sum, energy_sum, triplet_radial"),
        ({"n_blocks": 1, "scale_factors": CONSERVATIVE_FACTORS}, "has 4 values; 1 blocks need 1"),
        ({"scale_factors": DIRECT_FACTORS}, "force_radial has 5 values; 4 blocks need 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_cannot_be_is_refused_with_the_fix(change, words):
    with pytest.raises(ConfigError) as refusal:
        config_from_json({"atomic_numbers": [1], "e0": [0.0], **change}, direct=False)
    assert words in str(refusal.value)


def test_a_scale_factor_of_zero_is_refused():
    with pytest.raises(ConfigError, match=r"scale_factors.atom_sum must hold numbers above 0; got 0.0"):
        dataclasses.replace(FACTORS, atom_sum=(0.0, 1.0))


def test_a_saved_model_has_its_factors_and_its_bits(tmp_path):
    config = small_config(direct=True, scale_factors=fixed_factors(direct=True))
    model = GemNetDT.create(config, key=jax.random.key(2))
    save_model(tmp_path / "model", model, name="gemnet-dt")
    loaded = load_model(tmp_path / "model")
    assert loaded.config == model.config
    same = jax.tree.map(lambda old, new: np.array_equal(old, new), model.network, loaded.network)
    assert all(jax.tree.leaves(same))


def test_a_graph_without_reversed_edges_is_refused():
    config = small_config(direct=False, scale_factors=fixed_factors(direct=False))
    graph = jax.tree.map(jnp.asarray, graph_of(CRYSTAL, config=config))
    plain = eqx.tree_at(lambda g: g.reverse, graph, None, is_leaf=lambda leaf: leaf is None)
    with pytest.raises(ConfigError, match="graph_needs"):
        GemNetT.create(config, key=jax.random.key(0))(plain, edge_vectors(plain))
