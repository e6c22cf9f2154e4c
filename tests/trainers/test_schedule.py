import pytest

from mlipdb.trainers.recipe import OptimizerRecipe
from mlipdb.trainers.schedule import learning_rate

RECIPE = OptimizerRecipe(learning_rate=0.01, warmup_epochs=0.5, warmup_start=0.2, final_learning_rate=1e-6)


def rate(epoch, step, steps, epochs=10):
    return learning_rate(RECIPE, epoch=epoch, step=step, steps=steps, epochs=epochs)


def test_it_starts_at_a_fifth_of_the_peak_and_warms_up_linearly():
    assert [rate(0, step, 8) for step in (0, 2, 4)] == pytest.approx([0.002, 0.006, 0.01])


def test_the_cosine_ends_with_the_last_epoch_however_many_batches_each_epoch_has():
    # Dynamic batches: 40, 55, 38 … a step. A schedule over 10 × 40 steps would be at its floor before the end.
    counts = [40, 55, 38, 61, 44, 52, 47, 39, 58, 60]
    rates = [rate(epoch, step, steps) for epoch, steps in enumerate(counts) for step in range(steps)]
    assert rates[22:] == sorted(rates[22:], reverse=True)
    assert 1e-6 < rates[-1] < 2e-6


def test_a_run_shorter_than_its_warm_up_only_warms_up():
    recipe = OptimizerRecipe(warmup_epochs=5.0)
    rates = [learning_rate(recipe, epoch=0, step=step, steps=4, epochs=1) for step in range(4)]
    assert rates == sorted(rates)
    assert max(rates) <= 0.01
