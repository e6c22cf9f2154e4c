"""Each strategy of fine-tuning, from a foundation to a run."""

import shutil
from dataclasses import replace
from fnmatch import fnmatchcase

import ase
import jax
import numpy as np
import pytest

from mlipdb.errors import ConfigError, NotFoundError, TrainError
from mlipdb.structures import SYMBOLS
from mlipdb.subsets.subset import freeze, load, names
from mlipdb.testing.training import Stopper
from mlipdb.trainers.alignment import align
from mlipdb.trainers.archive import read_document
from mlipdb.trainers.arrays import named_arrays
from mlipdb.trainers.calculator import Calculator
from mlipdb.trainers.checkpoint import load_model, save_model
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.e0 import ReferenceShift
from mlipdb.trainers.finetune import STRATEGIES, ReplayChoice, strategy_recipe
from mlipdb.trainers.foundation import start_model
from mlipdb.trainers.foundation_place import foundation_name, foundation_place, placed, run_of
from mlipdb.trainers.foundation_reference import require_decided
from mlipdb.trainers.foundation_weights import fingerprint
from mlipdb.trainers.models.heads import only_head
from mlipdb.trainers.models.nequix import Nequix
from mlipdb.trainers.prepare import prepare
from mlipdb.trainers.replay_data import convention_warning, proportions, repeats
from mlipdb.trainers.run_files import best_checkpoint
from mlipdb.trainers.run_summary import summarise
from mlipdb.trainers.runs import find_run
from mlipdb.trainers.train import resume

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_programs")]

KEPT = ReplayChoice(source="kept")
REPLAYING = {"replay", "pseudo-replay", "replay-lora"}


def predicted(model, structure):
    """Energy in eV and forces of a structure."""
    atoms = ase.Atoms(structure.atomic_numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
    atoms.calc = Calculator(model)
    return atoms.get_potential_energy(), atoms.get_forces()


def recipe_of(db, name):
    return load_recipe(name, base=find_run(db, name).config["recipe"])


def changed(base, result):
    """Names of the foundation's arrays that the target's model has otherwise."""
    before, after = named_arrays(load_model(base)), named_arrays(only_head(load_model(result.folder), None))
    assert before.keys() == after.keys()
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_what_it_says_from_a_foundation_to_a_finished_run(db, base, tuned, strategy):
    result = tuned(strategy)
    facts = find_run(db, result.name)
    chosen = facts.config["recipe"]["finetune"]
    assert (facts.state, facts.parent, facts.subset) == ("finished", "base", "target")
    assert (chosen["foundation"], chosen["strategy"], chosen["e0"], chosen["replay"]) == (
        "base", strategy, "reestimate", "kept" if strategy in REPLAYING else ""
    )  # fmt: skip
    assert [entry["epoch"] for entry in result.metrics["epochs"]] == [1, 2]
    assert result.metrics["data"]["e0"]["rms_after"] <= result.metrics["data"]["e0"]["rms_before"]
    model = load_model(base)
    parts = {"freeze-conv": (*model.readout_arrays, *model.gain_arrays),
             "freeze-backbone": (*model.readout_arrays, *model.last_layer_arrays)}  # fmt: skip
    patterns = [pattern.replace("[", "[[]") for pattern in parts.get(strategy, ("*",))]
    learns = {name for name in named_arrays(model) if any(fnmatchcase(name, pattern) for pattern in patterns)}
    if STRATEGIES[strategy].lora_rank:
        learns = {name for name, array in named_arrays(model).items() if array.ndim >= 2 and "gain" not in name}
    assert changed(base, result) <= learns
    assert changed(base, result)


@pytest.mark.parametrize("strategy", sorted(REPLAYING))
def test_what_is_replayed_is_told_apart_and_has_a_head_of_its_own(tuned, strategy):
    result = tuned(strategy)
    [first, last] = result.metrics["epochs"]
    assert set(first["replay"]) == {"train", "validation"}
    for part in first["replay"].values():
        assert part["forces_mae"] > 0
    assert last["replay"]["validation"] != last["validation"]
    assert result.metrics["start"]["replay"]["forces_mae"] is not None
    model = load_model(result.folder)
    document = read_document(result.best)
    assert [head["name"] for head in document["model"]["config"]["heads"]] == ["target", "foundation"]
    other = load_model(f"{result.folder}@foundation")
    assert model.e0.tolist() != other.e0.tolist()
    one, two = named_arrays(model), named_arrays(other)
    assert {name for name in one if not np.array_equal(one[name], two[name])} or strategy == "replay-lora"


def test_at_step_0_the_model_predicts_what_the_foundation_does_but_for_the_reported_offsets(db, base, tuned):
    result = tuned("naive")
    offsets = result.metrics["data"]["e0"]["offsets"]
    recipe = placed(db, recipe_of(db, "whole-naive"))
    prepared = prepare(db, load(db, "target"), recipe=recipe, teacher_id=None, devices=1, say=print)
    started, foundation = start_model(prepared, recipe, say=print), load_model(base)
    assert offsets
    for structure in db.structures(load(db, "target").ids[:4].tolist()):
        shift = sum(offsets[SYMBOLS[number]] for number in structure.atomic_numbers.tolist())
        one, other = (predicted(model, structure) for model in (started, foundation))
        assert one[0] - other[0] == pytest.approx(shift, abs=1e-9)
        assert np.array_equal(one[1], other[1])


def test_at_step_0_pseudo_labels_are_what_the_foundation_says(tuned):
    # float32 twice, in batches of another shape: some 1e-7 of the scale.
    start = tuned("pseudo-replay").metrics["start"]["replay"]["loss"]
    assert start < 1e-4
    assert tuned("replay").metrics["start"]["replay"]["loss"] > 1e-2
    first, last = (epoch["replay"]["validation"]["loss"] for epoch in tuned("pseudo-replay").metrics["epochs"])
    assert first > 1000 * start  # it learns, too
    assert last > 1e-3


def test_pseudo_labels_are_of_the_foundations_weights_and_of_no_other_method(db, tuned):
    recipe = find_run(db, tuned("pseudo-replay").name).config["recipe"]["finetune"]
    method = db.method(int(recipe["replay_method"]))
    assert (method.kind, method.weights_sha256) == ("teacher", recipe["sha256"])


@pytest.mark.parametrize(("strategy", "steps"), [("lora", 2), ("replay", 4)])
def test_an_interrupted_run_that_goes_on_ends_with_the_same_bits(
    db, tune, tuned, listener, strategy, steps, assert_same_bits
):
    options = {"replay": KEPT} if strategy in REPLAYING else {}
    name = f"stopped-{strategy}"
    with pytest.raises(KeyboardInterrupt):
        tune(strategy, name=name, reporter=Stopper(steps), **options)
    result = resume(db, name, reporter=listener)
    assert result.metrics == tuned(strategy).metrics
    assert_same_bits(result.folder, tuned(strategy).folder)


def test_a_replay_that_weighs_nothing_is_the_naive_run_bit_for_bit(tune, tuned, assert_same_bits):
    result = tune("replay", "finetune.replay_weight=0", name="weightless", replay=KEPT)
    assert result.metrics == tuned("naive").metrics
    assert_same_bits(result.folder, tuned("naive").folder)


def test_the_replay_weight_changes_what_is_learnt(tune, tuned):
    result = tune("replay", "finetune.replay_weight=30", name="heavy", replay=KEPT)
    heavy, light = (each.metrics["epochs"][-1] for each in (result, tuned("replay")))
    assert result.metrics["start"] == tuned("replay").metrics["start"]
    assert heavy["validation"] != light["validation"]
    assert heavy["replay"] != light["replay"]


def test_a_run_that_forgets_too_much_stops_after_an_epoch_and_keeps_the_reason(db, base, tune):
    bound = ("finetune.replay_bound=1e-6", "finetune.replay_allowance=0")
    result = tune("replay", *bound, name="forgetful", replay=KEPT)
    assert len(result.metrics["epochs"]) == 1
    facts = find_run(db, "forgetful")
    assert "above the limit of 0.0" in facts.metrics["stopped"]
    assert facts.metrics["best"]["epoch"] == 0 == summarise(facts)["best_epoch"]
    assert not changed(base, result) - {"e0"}  # the best model is the foundation that the run began with


def test_a_bound_that_nothing_could_tell_to_be_broken_is_refused(db, tune):
    with pytest.raises(ConfigError, match="nothing is; take a strategy with --replay"):
        tune("naive", "finetune.replay_bound=2")
    with pytest.raises(ConfigError, match="nothing is"):
        tune("replay", "finetune.replay_bound=2", "finetune.replay_weight=0", replay=KEPT)
    freeze(db, "all-learnt", filter='elements HAS "C"', fractions=(100, 0, 0))
    with pytest.raises(ConfigError, match="'all-learnt' has no structure to validate with"):
        tune("replay", "finetune.replay_bound=2", name="unmeasured", replay=ReplayChoice(source="all-learnt"))


@pytest.mark.parametrize(
    ("mode", "offsets"), [("foundation", {}), ("fit", None), ('{"H": -1.0, "O": -2.0}', {"H": -1.0, "O": -2.0})]
)
def test_energies_of_atoms_are_the_foundations_or_fitted_or_given(db, base, tune, tmp_path, mode, offsets):
    if mode.startswith("{"):
        (tmp_path / "e0.json").write_text(mode)
        mode = str(tmp_path / "e0.json")
    result = tune("naive", f"finetune.e0={mode}", "epochs=1")
    e0 = dict(zip((1, 6, 8), load_model(result.folder).e0.tolist(), strict=True))
    before = dict(zip((1, 6, 8), load_model(base).e0.tolist(), strict=True))
    assert e0[6] == before[6]
    if mode == "foundation":
        assert e0 == before
    elif mode == "fit":
        assert e0[1] != before[1]
    else:
        assert (e0[1], e0[8]) == (-1.0, -2.0)
    assert result.metrics["data"]["e0"]["mode"] == mode


def test_an_element_without_an_isolated_atom_is_named(tune):
    with pytest.raises(NotFoundError, match="no isolated-atom energy for H, O"):
        tune("naive", "finetune.e0=isolated", name="isolated")


def test_labels_of_forces_alone_can_be_learnt_and_the_foundations_energies_stay(base, tune):
    # No label has this energy: only forces are left.
    result = tune("naive", "data.energy=energy_corrected", "epochs=1")
    assert result.metrics["data"]["e0"]["rms_before"] is None
    assert result.metrics["epochs"][0]["validation"]["energy_mae"] is None
    assert load_model(result.folder).e0.tolist() == load_model(base).e0.tolist()
    assert changed(base, result)


def test_an_element_that_only_held_out_structures_have_is_named_with_what_to_do(db, tune):
    freeze(db, "carbon-held-out", filter="all", split_by="element:C", fractions=(80, 20, 0))
    with pytest.raises(TrainError, match=r"'carbon-held-out' has C, but no structure to train on .*--e0 FILE\.json"):
        tune("naive", subset="carbon-held-out", name="no-carbon")


def test_e0s_that_are_given_or_kept_need_no_structure_to_train_on():
    shift = ReferenceShift(mode="reestimate", offsets={1: 0.5}, structures=3, rank=1, rms_before=1.0, rms_after=0.1)
    require_decided(shift, {1}, of="x")
    for other in (replace(shift, mode="foundation"), replace(shift, mode="given", offsets={1: 0.5, 6: 0.1}),
                  replace(shift, structures=0, offsets={})):  # fmt: skip
        require_decided(other, {1, 6}, of="x")
    with pytest.raises(TrainError, match="x has C"):
        require_decided(shift, {1, 6}, of="x")


def test_replayed_labels_are_held_against_the_foundation_unless_they_are_its_own(tuned):
    fit = tuned("replay").metrics["data"]["replay"]["fit"]
    assert fit["structures"] == tuned("replay").metrics["data"]["replay"]["structures"]["train"]
    assert fit["rms_before"] > fit["rms_after"] > 0
    assert "fit" not in tuned("pseudo-replay").metrics["data"]["replay"]


@pytest.mark.parametrize(
    ("before", "after", "structures", "warns"),
    [
        (3.0, 0.02, 30, True),
        (0.008, 0.001, 30, False),  # no worse than foundations are
        (0.05, 0.045, 30, False),  # an error that composition does not explain
        (0.1, 0.0, 5, False),  # offsets fit anything on so few
        (3.0, 0.0, 5, True),
    ],
)
def test_a_replay_of_another_convention_is_warned_of_with_numbers(before, after, structures, warns):
    fit = align(np.zeros(1), [{1: 1, 8: 1}])
    fit = replace(fit, structures=structures, rms_before=before, rms_after=after, r2=1 - (after / before) ** 2)
    warning = convention_warning(fit, energy="energy_zero")
    assert (warning is not None) is warns
    if warns:
        assert f"from {structures} replayed labels (energy_zero) by 3000.0 meV/atom rms" in warning


@pytest.fixture(scope="session")
def hydrocarbon(base, tmp_path_factory):
    """A foundation that knows no oxygen."""
    config = replace(load_model(base).config, atomic_numbers=(1, 6), e0=(-1.0, -2.0))
    path = tmp_path_factory.mktemp("hydrocarbon") / "model"
    save_model(path, Nequix.create(config, key=jax.random.key(0)), name="nequix")
    return path


def test_an_element_that_the_foundation_does_not_know_is_named_before_anything_is_trained(tune, hydrocarbon):
    with pytest.raises(TrainError, match="does not know O, which subset 'target' has; it knows H C"):
        tune("naive", foundation=str(hydrocarbon))


def test_replayed_structures_are_labelled_by_the_foundation_all_or_not_at_all(db, tune, hydrocarbon):
    freeze(db, "methane", filter='elements HAS ALL "H","C"', fractions=(60, 40, 0), seed=0)
    with pytest.raises(
        TrainError, match=r"could label \d+ of \d+ structures of replay subset 'kept'.*does not cover O"
    ):
        tune("pseudo-replay", foundation=str(hydrocarbon), subset="methane", replay=KEPT)


def test_a_run_does_not_go_on_from_a_foundation_that_was_changed(db, base, tune, hydrocarbon, listener, tmp_path):
    place = tmp_path / "foundation"
    save_model(place, load_model(base), name="nequix")
    with pytest.raises(KeyboardInterrupt):
        tune("naive", name="changed", foundation=str(place), reporter=Stopper(1))
    shutil.rmtree(place)
    with pytest.raises(TrainError, match="is not there"):
        resume(db, "changed", reporter=listener)
    shutil.copytree(hydrocarbon, place)
    with pytest.raises(TrainError, match=r"has other weights \(SHA-256 .*\) than the run was planned with"):
        resume(db, "changed", reporter=listener)


def test_a_run_is_the_parent_however_it_was_named(db, base, tmp_path, monkeypatch):
    best = best_checkpoint(base)
    assert [run_of(db, name) for name in ("base", str(base), str(best), f"{base}@x", str(tmp_path))] == [
        "base", "base", "base", "base", None
    ]  # fmt: skip
    monkeypatch.chdir(base.parent)
    assert run_of(db, "base") == "base" == foundation_name(db, "base") == foundation_name(db, str(base))
    monkeypatch.chdir(best.parent)
    assert foundation_name(db, best.name) == str(best)


def test_a_foundation_is_found_by_its_weights_where_its_name_leads_nowhere(db, base, tmp_path, monkeypatch):
    best = best_checkpoint(base).resolve()
    assert foundation_place(db, "/old/machine/base@x", sha256=fingerprint(base)) == f"{best}@x"
    monkeypatch.setenv("MLIPDB_CACHE", str(tmp_path))
    (tmp_path / "mine.nqx").write_bytes(b"weights")
    sha256 = fingerprint(tmp_path / "mine.nqx")
    assert foundation_place(db, "/old/machine/mine.nqx", sha256=sha256) == str(tmp_path / "mine.nqx")
    with pytest.raises(TrainError, match=r"'/old/machine/mine\.nqx' is not there"):
        foundation_place(db, "/old/machine/mine.nqx", sha256="0" * 64)


def test_one_head_of_a_fine_tuned_model_is_fine_tuned_again(db, tune, tuned):
    name = tuned("replay").name
    again = tune("naive", foundation=f"{name}@foundation", name="again")
    assert find_run(db, "again").parent == name
    kept = load_model(f"{tuned('replay').folder}@foundation")
    offsets = again.metrics["data"]["e0"]["offsets"]
    number = kept.atomic_numbers.index(1)
    assert load_model(again.folder).e0[number] == pytest.approx(kept.e0[number] + offsets["H"])


def test_structures_that_are_picked_are_the_same_when_asked_for_again(db, tune):
    choice = ReplayChoice(source="kept", size=6)
    names = [tune("replay", "epochs=1", replay=choice).name for _ in range(2)]
    chosen = {find_run(db, name).config["recipe"]["finetune"]["replay"] for name in names}
    assert len(chosen) == 1
    assert len(load(db, chosen.pop()).ids) == 6


def test_a_target_that_is_small_beside_the_replay_is_repeated():
    assert [repeats(10, 100), repeats(9, 100), repeats(5, 100), repeats(1, 100)] == [0, 1, 2, 10]


def test_batches_that_hold_little_of_the_target_are_told_with_the_size_that_holds_as_much_as_without_replay():
    assert proportions(80, 80, graphs=5) == []
    (larger,) = proportions(80, 360, graphs=5)
    assert "holds about 0.9 structures of the target" in larger
    assert "--set batch.graphs=28 it holds 5" in larger
    repeated, larger = proportions(20, 360, graphs=5)
    assert "each comes 2 times in an epoch" in repeated
    assert "batch.graphs=50" in larger
    assert proportions(80, 360, graphs=0) == []


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("naiv", {}, "Did you mean 'naive'"),
        ("replay", {}, "needs what is replayed: --replay"),
        ("lora", {"replay": KEPT}, "strategy lora replays nothing; leave --replay out"),
        ("replay", {"replay": ReplayChoice(source="kept", how="farthest")}, "--replay-pick farthest says how to pick"),
    ],
)
def test_what_does_not_go_together_is_an_error_with_the_next_step(tune, strategy, options, message):
    with pytest.raises(ConfigError, match=message):
        tune(strategy, **options)


@pytest.mark.parametrize("strategy", ["naive", "freeze-conv", "freeze-backbone", "lora"])
def test_a_name_for_a_readout_that_gets_none_is_refused(tune, strategy):
    with pytest.raises(ConfigError, match=f"strategy {strategy} leaves one readout, .*leave --head water out"):
        tune(strategy, "finetune.head=water")


def test_the_new_readout_cannot_have_the_foundations_name(db, tune):
    before = names(db)
    with pytest.raises(ConfigError, match="--head foundation is what a replay calls"):
        tune("replay", "finetune.head=foundation", replay=ReplayChoice(source="kept", size=5, seed=99))
    assert names(db) == before


def test_a_recipe_keeps_its_learning_rate_where_it_is_not_the_shipped_one():
    assert strategy_recipe("lora").optimizer.learning_rate == STRATEGIES["lora"].learning_rate
    assert strategy_recipe("lora", base="nano").optimizer.learning_rate == 0.01
    assert strategy_recipe("lora", settings=["finetune.lora_rank=2"]).finetune.lora_rank == 2
