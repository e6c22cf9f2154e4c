"""Any student can be fine-tuned, and one with several heads keeps them."""

import jax
import numpy as np
import pytest

from mlipdb.errors import ConfigError
from mlipdb.subsets.subset import load
from mlipdb.trainers import replay_data
from mlipdb.trainers.arrays import named_arrays
from mlipdb.trainers.checkpoint import load_checkpoint, load_model, save_model
from mlipdb.trainers.finetune import STRATEGIES, FinetuneWish, ReplayChoice, pseudo, strategy_recipe
from mlipdb.trainers.finetune.finetune import _resolved
from mlipdb.trainers.foundation import heads_after, start_model
from mlipdb.trainers.foundation_place import placed
from mlipdb.trainers.models.base import AbstractDirectModel
from mlipdb.trainers.models.gemnet import GemNetDT
from mlipdb.trainers.models.heads import Head, head_names, only_head, with_heads
from mlipdb.trainers.models.lora import effective
from mlipdb.trainers.models.painn import Painn
from mlipdb.trainers.prepare import prepare
from mlipdb.trainers.run_files import best_checkpoint
from mlipdb.trainers.settings import to_mapping

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_programs")]

E0 = {"atomic_numbers": [1, 6, 8], "e0": [-1.0, -2.0, -3.0]}
PAINN = {"cutoff": 3.0, "max_neighbours": 6, "hidden_size": 4, "n_layers": 1, "n_radial": 3, "scale_factors": [1.0]}
GEMNET = {
    "cutoff": 3.0, "max_neighbours": 6, "n_blocks": 1, "n_spherical": 2, "n_radial": 4, "atom_size": 4, "edge_size": 4,
    "triplet_size": 3, "rbf_size": 4, "cbf_size": 2, "bilinear_size": 3, "n_atom": 0, "n_before_skip": 0,
    "n_after_skip": 0, "n_concatenations": 0,
}  # fmt: skip
SMALL = ("batch.graphs=4", "epochs=1", "data.threads=1", "log.tensorboard=false")


@pytest.fixture(scope="session")
def foundations(base, tmp_path_factory):
    """Folders of tiny models of each architecture, by name."""
    folder = tmp_path_factory.mktemp("students")
    for name, kind, options in (("painn", Painn, PAINN), ("gemnet-dt", GemNetDT, GEMNET)):
        model = kind.create(kind.from_config({**options, **E0}).config, key=jax.random.key(0))
        save_model(folder / name, model, name=name)
    return {"nequix": base, "painn": folder / "painn", "gemnet-dt": folder / "gemnet-dt"}


def planned(db, foundation, strategy, *settings, said=print, **options):
    """The recipe of a fine-tuning as it is before the run begins."""
    replay = ReplayChoice(source="kept") if "replay" in strategy else None
    wish = FinetuneWish(foundation=str(foundation), subset="target", replay=replay, **options)
    return _resolved(db, wish, recipe=strategy_recipe(strategy, settings=[*SMALL, *settings]), say=said)


def started(db, recipe):
    """The model of step 0."""
    recipe = placed(db, recipe)
    prepared = prepare(db, load(db, "target"), recipe=recipe, teacher_id=None, devices=1, say=print)
    return start_model(prepared, recipe, say=print)


def same(one, other):
    first, second = named_arrays(one), named_arrays(other)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("student", ["nequix", "painn", "gemnet-dt"])
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "pseudo-replay"])
def test_every_strategy_starts_from_every_student_as_it_is(db, foundations, monkeypatch, student, strategy):
    monkeypatch.setattr(replay_data, "_fit", lambda *words, **more: None)
    # No label has that energy: the offsets are none, and nothing has to be evaluated.
    settings = ("data.energy=energy_corrected", "finetune.replay_energy=energy_uncorrected")
    model = effective(started(db, planned(db, foundations[student], strategy, *settings)))
    foundation = load_model(foundations[student])
    names = ("target", "foundation") if "replay" in strategy else ()
    assert head_names(model) == names
    for name in names or (None,):
        own = only_head(model, name)
        assert type(own) is type(foundation)
        assert same(own, foundation)
        assert own.config == foundation.config


@pytest.mark.parametrize("student", ["painn", "gemnet-dt"])
def test_a_student_with_forces_of_its_own_learns_no_stress_and_that_is_said(db, foundations, student):
    said = []
    recipe = planned(db, foundations[student], "naive", said=said.append)
    assert isinstance(load_model(foundations[student]), AbstractDirectModel)
    assert (recipe.loss["stress_mae"], recipe.loss["forces_l2"], recipe.model) == (0.0, 20.0, {"name": student})
    assert [line for line in said if "no stress: without stress_mae" in line]
    assert planned(db, foundations["nequix"], "naive").loss["stress_mae"] == 5.0


def test_a_student_with_forces_of_its_own_labels_its_replay_with_energies_and_forces_alone(
    db, foundations, monkeypatch
):
    monkeypatch.setattr(pseudo, "EVERY", 0.0)
    said = []
    recipe = planned(db, foundations["painn"], "pseudo-replay", said=said.append)
    method = db.method(int(recipe.finetune.replay_method))
    assert method.weights_sha256 == recipe.finetune.sha256
    kept = load(db, "kept").ids
    for _, label in db.read(kept, method_id=int(recipe.finetune.replay_method)):
        assert label.stress is None
        assert np.isfinite([label.energy_uncorrected, *label.forces.ravel()]).all()
    assert f"labelled {len(kept)} of {len(kept)}" in said


@pytest.fixture(scope="session")
def headed(db, base, tmp_path_factory):
    """A model with the heads ``pbe`` and ``scan``, which differ."""
    model = with_heads(load_model(base), [Head(name="pbe", energy="energy_zero"), Head(name="scan", shift=0.7)])
    path = tmp_path_factory.mktemp("headed") / "model"
    save_model(path, model, name="headed")
    return path


def test_heads_that_the_foundation_has_are_carried_along_and_not_changed(db, headed, tune):
    before = load_checkpoint(headed)
    result = tune("naive", "finetune.head=water", "epochs=1", foundation=str(headed), name="three-heads")
    after = load_checkpoint(best_checkpoint(result.folder))
    assert head_names(after) == ("water", "pbe", "scan")
    assert after.heads[1:] == before.heads
    for old, new in zip(before.readouts, after.readouts[1:], strict=True):
        assert same(old, new)
    assert not same(before.readouts[0], after.readouts[0])
    assert not same(before.shared, after.shared)


def test_at_step_0_every_head_that_was_there_says_what_it_said(db, headed):
    model = started(db, planned(db, headed, "naive", "finetune.head=water", "data.energy=energy_corrected"))
    for name in ("pbe", "scan"):
        one, other = only_head(model, name), load_model(f"{headed}@{name}")
        assert same(one, other)
        assert one.config == other.config
    assert same(only_head(model, "water"), load_model(f"{headed}@pbe"))


@pytest.mark.parametrize(
    ("before", "head", "replays", "after"),
    [
        ((), "target", False, ("target",)),
        ((), "target", True, ("target", "foundation")),
        (("pbe", "scan"), "water", False, ("water", "pbe", "scan")),
        (("pbe", "scan"), "water", True, ("water", "pbe", "scan")),
        (("pbe", "scan"), "pbe", False, ("pbe", "scan")),
        (("pbe", "scan"), "pbe", True, ("pbe", "foundation", "scan")),
    ],
)
def test_the_new_head_comes_first_then_the_one_it_starts_from(before, head, replays, after):
    assert heads_after(before, head=head, replays=replays) == after


@pytest.mark.parametrize(("head", "replays"), [("foundation", False), ("target", True)])
def test_two_heads_of_one_name_are_refused_with_what_to_do(head, replays):
    with pytest.raises(ConfigError, match="two would be called 'foundation'; give the new one another name"):
        heads_after(("target", "foundation"), head=head, replays=replays)


def test_one_head_that_is_named_leaves_the_others_behind(db, headed):
    recipe = planned(db, f"{headed}@scan", "naive", "data.energy=energy_corrected")
    assert to_mapping(recipe)["finetune"]["learns"] == ["*"]
    model = started(db, recipe)
    assert head_names(model) == ()
    assert same(model, load_model(f"{headed}@scan"))
