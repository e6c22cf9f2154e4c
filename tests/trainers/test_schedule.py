import pytest

from mlipdb.trainers.recipe import OptimizerRecipe
from mlipdb.trainers.schedule import force_errors, is_near_teacher, learning_rate, weights_at

RECIPE = OptimizerRecipe(learning_rate=0.01, warmup_epochs=0.5, warmup_start=0.2, final_learning_rate=1e-6)
PLATEAU = OptimizerRecipe(
    learning_rate=1.0,
    schedule="plateau",
    plateau_factor=0.5,
    plateau_patience=2,
    warmup_epochs=0.0,
    final_learning_rate=0.2,
)


def rate(epoch, step, steps, epochs=10):
    return learning_rate(RECIPE, epoch=epoch, step=step, steps=steps, epochs=epochs)


def after(*errors):
    return learning_rate(PLATEAU, epoch=len(errors), step=0, steps=4, epochs=100, errors=errors)


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


def test_a_plateau_waits_for_more_than_its_patience_and_begins_anew_at_a_lower_error():
    assert [after(), after(5.0), after(5.0, 6.0, 6.0)] == [1.0, 1.0, 1.0]
    assert after(5.0, 6.0, 6.0, 6.0) == 0.5
    assert after(5.0, 6.0, 6.0, 4.0, 6.0, 6.0) == 1.0
    assert after(5.0, 6.0, 6.0, 6.0, 6.0, 6.0) == 0.5
    assert after(5.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0) == 0.25


def test_a_hair_lower_is_no_lower_and_the_floor_holds():
    assert after(5.0, 4.9999, 4.9998, 4.9997) == 0.5
    assert after(*[5.0] * 40) == 0.2


def test_a_plateau_comes_after_the_warm_up():
    recipe = OptimizerRecipe(learning_rate=1.0, schedule="plateau", warmup_epochs=2.0, warmup_start=0.0)
    rates = [learning_rate(recipe, epoch=e, step=0, steps=4, epochs=9, errors=[1.0] * e) for e in (0, 1, 2)]
    assert rates == [0.0, 0.5, 1.0]


def test_errors_are_those_of_the_epochs_that_were_validated():
    history = [
        {"train": {"forces_mae": 9.0}, "validation": None},
        {"train": {"forces_mae": 8.0}, "validation": {"forces_mae": 7.0}},
        {"train": {"forces_mae": 6.0}, "validation": {"forces_mae": None}},
    ]
    assert force_errors(history, part="validation") == [7.0]
    assert force_errors(history, part="train") == [9.0, 8.0, 6.0]


def test_a_weight_follows_the_points_of_its_schedule():
    schedules = {"energy_mae": [[2.0, 0.0], [4.0, 1.0], [6.0, 1.0], [6.0, 10.0]]}
    found = [weights_at({"energy_mae": 3.0, "forces_l2": 7.0}, schedules, epoch=epoch) for epoch in range(8)]
    assert [weights["energy_mae"] for weights in found] == [0.0, 0.0, 0.0, 1.5, 3.0, 3.0, 30.0, 30.0]
    assert {weights["forces_l2"] for weights in found} == {7.0}


def test_a_weight_is_halved_once_however_often_the_error_was_low():
    assert is_near_teacher([30.0, 20.9, 25.0, 19.0], teacher=20.0, limit=1.05)
    assert not is_near_teacher([30.0, 21.0], teacher=20.0, limit=1.05)
    assert not is_near_teacher([1.0], teacher=20.0, limit=0.0)
    assert not is_near_teacher([1.0], teacher=None, limit=1.05)
    weights = {"hessian_rows": 200.0, "forces_l2": 100.0}
    assert weights_at(weights, {}, epoch=9, halved=["hessian_rows"]) == {"hessian_rows": 100.0, "forces_l2": 100.0}
