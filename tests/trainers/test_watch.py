"""What ends a fine-tuning early, or slows it."""

import pytest

from mlipdb.trainers.position import Position
from mlipdb.trainers.recipe import FinetuneRecipe
from mlipdb.trainers.watch import may_be_best, reason_to_stop, slowing

START = {"validation": None, "replay": {"forces_mae": 20.0}}


def history(*replayed, validated=True):
    return [
        {
            "epoch": number,
            "validation": {"loss": 1.0} if validated else None,
            "replay": {"train": {}, "validation": None if error is None else {"forces_mae": error}},
        }
        for number, error in enumerate(replayed, start=1)
    ]


def reason(recipe, found, *, best=99, start=START):
    return reason_to_stop(recipe, found, start=start, best_epoch=best)


def test_a_run_that_forgets_too_much_stops_and_says_how_much():
    recipe = FinetuneRecipe(replay_bound=2.0)
    assert reason(recipe, history(39.0)) is None
    assert "41.0 meV/Å, is above the limit of 40.0" in reason(recipe, history(39.0, 41.0))
    assert reason(FinetuneRecipe(), history(1e6)) is None


def test_an_error_below_the_allowance_is_no_forgetting_however_small_it_was_at_the_start():
    # Pseudo-labels: the foundation is right about its own labels, and any multiple of zero is zero.
    start = {"replay": {"forces_mae": 1e-4}}
    recipe = FinetuneRecipe(replay_bound=2.0, replay_allowance=10.0)
    assert reason(recipe, history(9.9), start=start) is None
    assert "limit of 10.0" in reason(recipe, history(10.1), start=start)


def test_energies_that_are_forgotten_end_a_run_though_its_forces_are_not():
    start = {"replay": {"forces_mae": 20.0, "energy_mae": 6.0}}
    found = [{**each, "replay": {"validation": {"forces_mae": 20.0, "energy_mae": e}}} for each, e in
             zip(history(0.0, 0.0), (11.9, 12.1), strict=True)]  # fmt: skip
    recipe = FinetuneRecipe(replay_bound=2.0)
    assert reason(recipe, found[:1], start=start) is None
    assert "the energy error on what is replayed, 12.1 meV/atom, is above the limit of 12.0" in reason(
        recipe, found, start=start
    )
    assert reason(FinetuneRecipe(replay_bound=2.0, replay_energy_allowance=13.0), found, start=start) is None


@pytest.mark.parametrize("action", ["stop", "lower"])
def test_a_model_above_the_limit_is_never_the_best_one(action):
    recipe = FinetuneRecipe(replay_bound=2.0, replay_action=action)
    allowed = [may_be_best(recipe, entry, start=START) for entry in history(39.0, 41.0, None, float("nan"))]
    assert allowed == [True, False, False, False]
    assert all(may_be_best(FinetuneRecipe(), entry, start=START) for entry in history(39.0, 41.0, None))


def test_the_model_before_the_first_step_is_the_best_until_another_is():
    position = Position()
    position.take_start(2.0)
    assert [position.take_if_best(loss) for loss in (None, float("nan"), 2.5)] == [False, False, False]
    assert (position.best_epoch, position.best_loss) == (0, 2.0)
    position.next_epoch()
    assert position.take_if_best(1.5)
    assert (position.best_epoch, position.best_loss) == (2, 1.5)


def test_lowering_halves_the_rate_for_each_validation_above_the_limit_and_never_stops():
    recipe = FinetuneRecipe(replay_bound=2.0, replay_action="lower")
    found = history(41.0, 39.0, None, 50.0)
    assert reason(recipe, found) is None
    assert [slowing(recipe, found[:number], start=START) for number in range(5)] == [1.0, 0.5, 0.5, 0.5, 0.25]
    assert slowing(FinetuneRecipe(replay_bound=2.0), found, start=START) == 1.0


@pytest.mark.parametrize("start", [None, {"validation": None, "replay": None}, {"replay": {"forces_mae": None}}])
def test_without_an_error_to_compare_with_nothing_is_forgotten(start):
    assert reason(FinetuneRecipe(replay_bound=2.0), history(1e6), start=start) is None


def test_patience_counts_validations_since_the_best_one():
    recipe = FinetuneRecipe(patience=2)
    assert reason(recipe, history(None, None, None), best=2) is None
    assert "2 validations in a row were not better than that of epoch 1" in reason(recipe, history(*[None] * 3), best=1)
    assert reason(recipe, history(*[None] * 9, validated=False), best=1) is None
