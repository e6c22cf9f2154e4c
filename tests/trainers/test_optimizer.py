import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float

from mlipdb.trainers.optimizer import averaged, make_optimizer, trainable
from mlipdb.trainers.recipe import OptimizerRecipe


class Toy(eqx.Module):
    """A model with everything that must not learn as arrays."""

    weight: Float[Array, "fan_in fan_out"]
    gain: Float[Array, " channels"]
    e0: Float[Array, " species"]
    scale: Float[Array, ""]
    shift: Float[Array, ""]
    avg_n_neighbors: Float[Array, ""]


def toy(shape=(3, 4)):
    rng = np.random.default_rng(0)
    draw = lambda *size: jnp.asarray(rng.normal(size=size), jnp.float32)  # noqa: E731
    return Toy(draw(*shape), draw(5), draw(2), draw(), draw(), draw())


def one_step(recipe, model, gradient):
    optimizer = make_optimizer(recipe)
    parameters = eqx.filter(model, trainable(model))
    gradient = eqx.filter(gradient, trainable(model))
    return optimizer.update(gradient, optimizer.init(parameters), parameters)[0]


def orthogonalised(matrix):
    """Five Newton-Schulz steps as the recipe writes them, in float64."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (2, 8)])
def test_one_muon_step_is_the_one_computed_by_hand(shape):
    # Stored (in, out): the update grows with √max(1, out/in); the other orientation fails for (2, 8) by a factor of 2.
    model, gradient = toy(shape), toy(shape)
    update = one_step(OptimizerRecipe(weight_decay=0.1), model, gradient)
    # First step: momentum 0.95 with bias correction makes the Nesterov average a multiple of the gradient.
    expected = -(orthogonalised(np.asarray(gradient.weight, np.float64)) * max(1.0, shape[1] / shape[0]) ** 0.5)
    expected -= 0.1 * np.asarray(model.weight)
    np.testing.assert_allclose(update.weight, expected, atol=2e-5)


def axes_of_matrices(parameters):
    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    return jax.tree.map(lambda leaf: axes if leaf.ndim >= 2 else None, parameters)


def test_the_state_of_muon_is_laid_out_as_optax_has_it():
    model, recipe = toy(), OptimizerRecipe()
    parameters = eqx.filter(model, trainable(model))
    optimizer = make_optimizer(recipe)
    plain = optax.contrib.muon(1.0, muon_weight_dimension_numbers=axes_of_matrices)
    expected = optax.chain(optax.clip_by_global_norm(recipe.clip_norm), plain).init(parameters)
    _, state = optimizer.update(parameters, optimizer.init(parameters), parameters)
    for found in (optimizer.init(parameters), state):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (2, 3, 5), (4, 1)])
def test_muon_steps_as_optax_does(shape):
    model = toy(shape)
    parameters = eqx.filter(model, trainable(model))
    ours = make_optimizer(OptimizerRecipe(clip_norm=1e9, weight_decay=0.1))
    theirs = optax.contrib.muon(1.0, weight_decay=0.1, muon_weight_dimension_numbers=axes_of_matrices)
    states = [ours.init(parameters), theirs.init(parameters)]
    for scale in (1.0, -0.3, 20.0):
        gradient = jax.tree.map(lambda leaf, scale=scale: jnp.sin(scale * leaf), parameters)
        with jax.numpy_dtype_promotion("standard"):
            expected, states[1] = theirs.update(gradient, states[1], parameters)
        update, states[0] = ours.update(gradient, states[0], parameters)
        for found, wanted in zip(jax.tree.leaves(update), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_vectors_take_an_adam_step_without_decay():
    gradient = toy()
    update = one_step(OptimizerRecipe(weight_decay=0.1), toy(), gradient)
    g = np.asarray(gradient.gain, np.float64)
    # Nesterov Adam, first step: m̂ = 0.9 m/(1 - 0.9²) + 0.1 g/(1 - 0.9) with m = 0.1 g, v̂ = g²
    mean = 0.9 * 0.1 * g / (1 - 0.9**2) + 0.1 * g / (1 - 0.9)
    np.testing.assert_allclose(update.gain, -mean / (np.abs(g) + 1e-8), rtol=1e-5)


def test_adamw_decays_matrices_only():
    model, gradient = toy(), toy()
    plain = one_step(OptimizerRecipe(name="adamw", weight_decay=0.0), model, gradient)
    decayed = one_step(OptimizerRecipe(name="adamw", weight_decay=0.1), model, gradient)
    np.testing.assert_allclose(decayed.weight - plain.weight, -0.1 * model.weight, atol=1e-6)
    assert np.array_equal(decayed.gain, plain.gain)


def test_amsgrad_divides_by_the_largest_average_square_as_pytorch_does():
    recipe = OptimizerRecipe(name="adamw", amsgrad=True, epsilon=1e-7, weight_decay=0.1, clip_norm=1e9)
    optimizer, model = make_optimizer(recipe), toy()
    parameters = eqx.filter(model, trainable(model))
    state = optimizer.init(parameters)
    mean = square = largest = np.zeros((3, 4))
    for step, scale in enumerate((10.0, 0.1, -0.1), start=1):
        gradient = jax.tree.map(lambda leaf, scale=scale: scale * leaf, parameters)
        update, state = optimizer.update(gradient, state, parameters)
        g = scale * np.asarray(model.weight, np.float64)
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
        largest = np.maximum(largest, square)
        denominator = np.sqrt(largest) / np.sqrt(1 - 0.999**step) + 1e-7
        expected = -(mean / (1 - 0.9**step)) / denominator - 0.1 * np.asarray(model.weight)
        np.testing.assert_allclose(update.weight, expected, rtol=1e-4, atol=1e-6)
    assert (square < largest).all()  # else this would be plain Adam


class Table(eqx.Module):
    """A table of one row an element, beside a matrix of the same values."""

    embedding: Float[Array, "species channels"]
    weight: Float[Array, "fan_in fan_out"]


@pytest.mark.parametrize("options", [{"name": "adamw"}, {"name": "adamw", "amsgrad": True}, {"name": "muon"}])
def test_an_embedding_neither_decays_nor_is_orthogonalised(options):
    values = toy().weight
    model = gradient = Table(values, values)
    plain = one_step(OptimizerRecipe(weight_decay=0.0, **options), model, gradient)
    decayed = one_step(OptimizerRecipe(weight_decay=0.1, **options), model, gradient)
    assert np.array_equal(decayed.embedding, plain.embedding)
    np.testing.assert_allclose(decayed.weight - plain.weight, -0.1 * values, atol=1e-6)
    if options["name"] == "muon":
        np.testing.assert_allclose(np.abs(plain.embedding), 1.0, rtol=0.5)  # Adam's first step: the sign
        assert not np.allclose(np.abs(plain.weight), 1.0, rtol=0.5)


def test_a_huge_gradient_is_clipped_by_its_global_norm():
    huge = jax.tree.map(lambda leaf: 1e6 * leaf, toy())
    recipe = OptimizerRecipe(name="adamw", clip_norm=1e-7, weight_decay=0.0)  # below Adam's epsilon: the norm shows
    update = one_step(recipe, toy(), huge)
    scale = 1e-7 / np.sqrt(sum(np.square(leaf).sum() for leaf in (huge.weight, huge.gain)))
    clipped = np.asarray(huge.gain, np.float64) * scale
    np.testing.assert_allclose(update.gain, -clipped / (np.abs(clipped) + 1e-8), rtol=1e-4)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_what_comes_from_the_data_keeps_every_bit_in_a_hundred_steps(name):
    model = start = toy()
    optimizer = make_optimizer(OptimizerRecipe(name=name, weight_decay=0.5))
    learns = trainable(model)
    state, average = optimizer.init(eqx.filter(model, learns)), eqx.filter(model, learns)

    @eqx.filter_jit
    def step(model, state, average, number):
        parameters, fixed = eqx.partition(model, learns)
        loss = lambda p: sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(eqx.combine(p, fixed)))  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(parameters), state, parameters)
        parameters = eqx.apply_updates(parameters, updates)
        return eqx.combine(parameters, fixed), state, averaged(average, parameters, step=number, decay=0.9)

    for number in range(100):
        model, state, average = step(model, state, average, jnp.int32(number))
    assert not np.array_equal(model.weight, start.weight)
    for field in ("e0", "scale", "shift", "avg_n_neighbors"):
        assert np.array_equal(getattr(model, field), getattr(start, field))
        assert np.array_equal(getattr(eqx.combine(average, model), field), getattr(start, field))


@pytest.mark.parametrize(("step", "rate"), [(0, 0.1), (5, 6 / 15), (10**6, 0.999)])
def test_the_average_follows_faster_while_it_is_young(step, rate):
    found = averaged(jnp.zeros(1), jnp.ones(1), step=jnp.int32(step), decay=0.999)
    assert float(found[0]) == pytest.approx(1.0 - rate, rel=1e-4)
