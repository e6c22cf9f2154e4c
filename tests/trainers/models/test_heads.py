"""Heads on a shared trunk: they start alike, are chosen graph by graph, and are models of their own outside."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipdb.errors import ConfigError, NotFoundError
from mlipdb.structures import make_structure
from mlipdb.testing.models import DirectModelConformance, Made, ModelConformance, made, quick
from mlipdb.testing.training import tiny_nequix
from mlipdb.trainers.arrays import arrays_like, count_parameters, named_arrays
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import needed_shape, pad_graph
from mlipdb.trainers.models.base import AbstractForceField, ElementError
from mlipdb.trainers.models.derive import edge_vectors, predict
from mlipdb.trainers.models.gemnet import GemNetDT, GemNetT
from mlipdb.trainers.models.gemnet_config import GemNetConfig, ScaleFactors
from mlipdb.trainers.models.heads import Head, Headed, HeadedDirect, head_names, only_head, with_heads
from mlipdb.trainers.models.nequix import Nequix
from mlipdb.trainers.models.painn import Painn, PainnConservative
from mlipdb.trainers.models.painn_config import PainnConfig

CRYSTAL = make_structure(
    [14, 8], [[0.05, 0.1, -0.1], [1.6, 1.35, 1.5]], cell=[[3.1, 0.2, 0], [0, 3.0, 0.4], [0.3, 0, 3.3]], pbc=(True,) * 3
)
MOLECULE = make_structure([8, 1, 1], [[0, 0, 0], [0.98, 0.1, 0], [-0.2, 0.95, 0.15]])
FACTS = {"atomic_numbers": (1, 8, 14), "e0": (-1.0, -2.0, -3.0), "scale": 0.8, "shift": 0.1, "cutoff": 3.0}
NEQUIX = tiny_nequix(**FACTS, avg_n_neighbors=12.0)
PAINN = {**FACTS, "max_neighbours": 9, "n_layers": 2, "hidden_size": 16, "n_radial": 5, "scale_factors": (1.2, 1.3)}
GEMNET = {
    **FACTS,
    **dict.fromkeys(("n_blocks", "n_spherical"), 2),
    **dict.fromkeys(("n_radial", "rbf_size", "cbf_size", "triplet_size", "bilinear_size"), 4),
    **dict.fromkeys(("atom_size", "edge_size"), 6),
    "n_atom": 1,
}
FACTORS = {"triplet_radial": (1.1, 0.9), "triplet_sum": (1.0, 1.2), "atom_sum": (0.7, 0.6), "energy_sum": (0.6,) * 3}
DIRECT_FACTORS = ScaleFactors(**FACTORS, force_radial=(1.5, 1.4, 1.3))
KINDS = {
    "nequix": (Nequix, NEQUIX),
    "painn": (Painn, PainnConfig(**PAINN, direct=True)),
    "painn-conservative": (PainnConservative, PainnConfig(**PAINN, direct=False)),
    "gemnet-dt": (GemNetDT, GemNetConfig(**GEMNET, direct=True, scale_factors=DIRECT_FACTORS)),
    "gemnet-t": (GemNetT, GemNetConfig(**GEMNET, direct=False, scale_factors=ScaleFactors(**FACTORS))),
}


HEADS = [Head(name="target"), Head(name="foundation", shift=0.7)]
quick_predict = quick(predict)


@pytest.fixture(params=list(KINDS))
def model(request):
    return made(*KINDS[request.param])


def graph_of(model, *structures, heads=None):
    lists = [neighbours(structure, model.cutoff, needs=model.graph_needs) for structure in structures]
    graph = pad_graph(structures, lists, shape=needed_shape(structures, lists))
    head = None if heads is None else np.array([*heads, 0], np.int32)
    return jax.tree.map(jnp.asarray, dataclasses.replace(graph, head=head))


def changed(headed, place, amount=0.3):
    """The readout of one head moved away from the others."""
    readouts = list(headed.readouts)
    readouts[place] = jax.tree.map(lambda leaf: leaf + amount, readouts[place])
    return dataclasses.replace(headed, readouts=tuple(readouts))


def same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@quick
def in_two_ways(model, graph):
    vectors = edge_vectors(graph)
    return model(graph, vectors), model.read(graph, model.trunk(graph, vectors))


def test_a_call_is_the_readout_of_the_trunk(model):
    whole, divided = in_two_ways(model, graph_of(model, CRYSTAL, MOLECULE))
    same(whole, divided)


def test_the_trunk_needs_nothing_of_the_readout_and_its_invariants_do_not_turn(model):
    without = eqx.partition(model, arrays_like(model, model.readout_arrays))[1]
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = dataclasses.replace(CRYSTAL, positions=-CRYSTAL.positions @ turn.T, cell=-CRYSTAL.cell @ turn.T)

    @quick
    def invariants(graph):
        return without.invariants(without.trunk(graph, edge_vectors(graph)))

    found, after = (np.asarray(invariants(graph_of(model, one)))[:2] for one in (CRYSTAL, turned))
    assert found.shape[1] > 1
    assert not np.allclose(found[0], found[1])
    np.testing.assert_allclose(after, found, atol=2e-4 * np.abs(found).max())


def test_patterns_name_the_arrays_of_readout_last_layer_and_norms(model):
    last = {name for name, one in _flags(model, model.last_layer_arrays).items() if one}
    assert last
    assert not any(one for name, one in _flags(model, model.readout_arrays).items() if name in last)
    assert all(array.ndim == 1 for name, array in named_arrays(model).items() if _flags(model, model.gain_arrays)[name])
    assert any(_flags(model, model.gain_arrays).values()) == (not isinstance(model, GemNetDT | GemNetT))


def _flags(model, patterns):
    chosen = arrays_like(model, patterns)
    leaves, _ = jax.tree_util.tree_flatten_with_path(chosen)
    return dict(zip(named_arrays(model), [one for _, one in leaves], strict=True))


def test_brackets_in_a_pattern_stand_for_themselves_and_one_that_fits_nothing_is_refused():
    model = made(*KINDS["nequix"])
    named = {name for name, one in _flags(model, ("layers[1].skip[*",)).items() if one}
    assert named == {name for name in named_arrays(model) if name.startswith("layers[1].skip")}
    with pytest.raises(ConfigError, match=r"like 'layer\[1\]\*'; it has layers\[0\]"):
        arrays_like(model, ("layer[1]*",))


def test_every_head_starts_as_the_model_bit_for_bit(model):
    headed = with_heads(model, [Head(name="target"), Head(name="foundation")])
    assert isinstance(headed, Headed if isinstance(model, AbstractForceField) else HeadedDirect)
    expected = quick_predict(model, graph_of(model, CRYSTAL, MOLECULE))
    for name in head_names(headed):
        alone = only_head(headed, name)
        assert type(alone) is type(model)
        assert alone.to_config() == model.to_config()
        same(named_arrays(alone), named_arrays(model))
        same(quick_predict(alone, graph_of(model, CRYSTAL, MOLECULE)), expected)


def test_each_graph_of_a_batch_is_read_by_its_own_head(model):
    headed = changed(with_heads(model, [Head(name="target"), Head(name="foundation", shift=0.7)]), 1)
    found = quick_predict(headed, graph_of(model, CRYSTAL, MOLECULE, CRYSTAL, heads=(1, 0, 0)))
    second, first = (quick_predict(only_head(headed, name), graph_of(model, CRYSTAL)) for name in (None, "foundation"))
    assert abs(float(first.energy[0] - second.energy[0])) > 0.1
    np.testing.assert_allclose(found.energy[jnp.asarray([0, 2])], [first.energy[0], second.energy[0]], rtol=1e-5)
    np.testing.assert_allclose(found.forces[:2], first.forces[:2], atol=1e-4 * np.abs(first.forces).max())
    np.testing.assert_allclose(found.forces[5:7], second.forces[:2], atol=1e-4 * np.abs(second.forces).max())
    assert (float(found.energy[3]), np.abs(found.forces[7]).max()) == (0.0, 0.0)


def test_a_graph_of_one_head_gives_the_other_head_no_gradient():
    model = made(*KINDS["nequix"])
    headed = with_heads(model, [Head(name="target"), Head(name="foundation")])
    graph = graph_of(model, CRYSTAL, heads=(1,))
    gradient = quick(eqx.filter_grad(lambda m: predict(m, graph).energy.sum()))(headed)
    assert not gradient.readouts[0].readout.any()
    assert gradient.readouts[1].readout.any()


def test_the_trunk_is_there_once(model):
    readout = sum(
        array.size for name, array in named_arrays(model).items() if _flags(model, model.readout_arrays)[name]
    )
    three = with_heads(model, [Head(name=name) for name in "abc"])
    assert count_parameters(three) == count_parameters(model) + 2 * readout


def test_heads_that_are_there_stay_when_one_is_added():
    model = made(*KINDS["nequix"])
    headed = changed(with_heads(model, [Head(name="pbe", shift=-1.0), Head(name="r2scan")]), 0)
    more = with_heads(headed, [Head(name="hse", method="hse06", energy="energy_corrected")])
    assert head_names(more) == ("pbe", "r2scan", "hse")
    for name, like in (("pbe", "pbe"), ("r2scan", "r2scan"), ("hse", "pbe")):  # a new one starts as the first
        same(named_arrays(only_head(more, name)), named_arrays(only_head(headed, like)))
        assert only_head(more, name).config == only_head(headed, like).config


def test_each_head_has_its_own_e0_scale_and_shift():
    model = made(*KINDS["nequix"])
    heads = [Head(name="target", e0=(-1.5, -2.5, -3.5), scale=0.5, shift=2.0), Head(name="foundation")]
    headed = with_heads(model, heads)
    target, foundation = only_head(headed, "target"), only_head(headed, "foundation")
    assert (target.config.e0, target.config.scale, target.config.shift) == ((-1.5, -2.5, -3.5), 0.5, 2.0)
    assert foundation.config == model.config
    assert headed.e0.tolist() == [-1.5, -2.5, -3.5]
    graph = graph_of(model, MOLECULE)
    first, second = (np.asarray(quick_predict(one, graph).atomic_energies[:3]) for one in (target, foundation))
    np.testing.assert_allclose((first - 2.0) / 0.5, (second - 0.1) / 0.8, rtol=1e-4)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([], "needs one at least"),
        ([Head(name="a"), Head(name="a")], "two heads are called 'a'"),
        ([Head(name="a", e0=(1.0,))], "1 E0s for 3 elements"),
    ],
)
def test_heads_that_cannot_be_are_refused(heads, message):
    with pytest.raises(ConfigError, match=message):
        with_heads(made(*KINDS["nequix"]), heads)


@pytest.mark.parametrize("name", ["", "a@b", "a/b", ".hidden"])
def test_a_head_s_name_can_stand_after_the_at_of_a_run(name):
    with pytest.raises(ConfigError, match="cannot be called"):
        Head(name=name)


def test_an_unknown_head_is_an_error_that_names_those_there_are():
    headed = with_heads(made(*KINDS["nequix"]), [Head(name="target"), Head(name="foundation")])
    with pytest.raises(NotFoundError, match=r"no head 'targt'. Did you mean 'target'\? Its heads: target, foundation"):
        only_head(headed, "targt")
    with pytest.raises(NotFoundError, match="one readout, without a name: leave @target off"):
        only_head(made(*KINDS["nequix"]), "target")


class Undivided(AbstractForceField):
    """A plug-in from before models were divided."""

    cutoff = 3.0
    graph_needs = Nequix.graph_needs
    atomic_numbers = (1,)
    e0 = np.zeros(1)

    def __call__(self, graph, edge_vectors):
        return jnp.zeros(len(graph.atom_mask))

    def to_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls()


def test_a_model_that_is_not_divided_is_told_how_to_be():
    with pytest.raises(ConfigError, match=r"Undivided is not divided into trunk and readout.*AbstractTrunked"):
        with_heads(Undivided(), [Head(name="target")])


def test_a_reference_changes_settings_and_no_array(model):
    again = model.with_reference(e0={8: -9.0}, shift=0.4)
    assert again.e0.tolist() == [-1.0, -9.0, -3.0]
    assert (again.config.scale, again.config.shift) == (0.8, 0.4)
    same(named_arrays(again), named_arrays(model))
    with pytest.raises(ElementError, match="e0 has He"):
        model.with_reference(e0={2: 0.0})


class TestHeaded(ModelConformance):
    model = Made(lambda: changed(with_heads(made(*KINDS["nequix"]), HEADS), 0))
    structures = (CRYSTAL, MOLECULE)


class TestHeadedDirect(DirectModelConformance):
    model = Made(lambda: changed(with_heads(made(*KINDS["painn"]), HEADS), 0))
    structures = (CRYSTAL, MOLECULE)
    smooth_cutoff = False
