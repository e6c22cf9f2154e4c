"""Which structures a fine-tuning replays."""

import jax
import numpy as np
import pytest

from mlipdb.errors import ConfigError
from mlipdb.labelling.disagreement import disagree
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel
from mlipdb.subsets.subset import freeze, freeze_chosen, load
from mlipdb.testing.training import tiny_nequix, training_database
from mlipdb.trainers.finetune.replay_set import ReplayChoice, check_choice, replay_set
from mlipdb.trainers.models.nequix import Nequix


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """The training database with the subsets ``target`` and ``hydrocarbons``."""
    db = training_database(tmp_path_factory.mktemp("replay-set") / "db", structures=27)
    freeze(db, "target", filter='elements HAS ALL "H","O"', fractions=(60, 40, 0), seed=0)
    freeze(db, "hydrocarbons", filter='elements HAS ALL "H","C"', fractions=(100, 0, 0))
    freeze(db, "everything-else", filter="all", fractions=(90, 10, 0))
    return db


@pytest.fixture(scope="module")
def foundation():
    return Nequix.create(tiny_nequix((1, 6, 8), (0.0, 0.0, 0.0), avg_n_neighbors=10.0), key=jax.random.key(3))


@pytest.fixture
def chosen(db, foundation):
    """The replay set of a choice, and what was said."""

    def choose(target="target", model=foundation, **settings):
        said = []
        choice = ReplayChoice(**{"source": "all", **settings})
        target = load(db, target)
        return replay_set(db, choice, target=target, model=model, foundation="0" * 64, say=said.append), said

    return choose


def materials(db, ids):
    return {db.entry(int(number)).material for number in ids}


def held_out(db, name):
    parts = load(db, name).splits
    return np.concatenate([parts["validation"], parts["test"]])


def test_no_material_that_the_target_is_validated_or_tested_on_is_picked(db, chosen):
    # One frame of a material is held back: its other frames are all but the same structure.
    freeze_chosen(db, "one-frame", np.array([1, 4, 7, 10]), about="a test", validation=50.0)
    held = held_out(db, "one-frame")
    rest = 27 - 3 * len(held)
    found, said = chosen("one-frame", size=rest)
    assert not materials(db, found.ids) & materials(db, held)
    assert not any("WARNING" in line for line in said)


def test_a_subset_that_is_replayed_whole_is_told_of_by_material(db, chosen):
    freeze_chosen(db, "first-frames", np.arange(1, 28, 3), about="a test", validation=34.0)
    held = held_out(db, "first-frames")
    freeze(db, "everything", filter="all", fractions=(100, 0, 0))
    found, said = chosen("first-frames", source="everything")
    assert len(found.ids) == 27
    assert f"WARNING: {3 * len(held)} structures of the replay are of materials" in said[-1]


def test_a_foundation_of_other_elements_is_asked_for_the_same_pick_under_another_name(db, chosen):
    other = Nequix.create(tiny_nequix((1, 6), (0.0, 0.0), avg_n_neighbors=10.0), key=jax.random.key(3))
    one, _ = chosen(size=3)
    found, _ = chosen(size=3, model=other)
    assert one.name != found.name
    assert chosen(size=3)[0].name == one.name
    assert {number for each in db.structures(found.ids) for number in each.composition} <= {1, 6}


def test_a_pick_by_disagreement_can_be_asked_for_again_when_the_disagreement_has_changed(db, chosen):
    label_with_errors(db, "first", errors={3: 0.1, 9: 0.5, 11: 0.4, 14: 0.3})
    one, _ = chosen("hydrocarbons", size=2, how="disagreement")
    assert chosen("hydrocarbons", size=2, how="disagreement")[0].name == one.name
    label_with_errors(db, "first", errors={20: 0.9})
    other, _ = chosen("hydrocarbons", size=2, how="disagreement")
    assert (one.ids.tolist(), other.ids.tolist()) == ([9, 11], [9, 20])


def test_without_a_size_all_that_fit_by_their_elements_are_replayed(db, chosen):
    found, _ = chosen("hydrocarbons", elements="within")
    assert {number for each in db.structures(found.ids) for number in each.composition} == {1, 6}
    assert len(found.ids) == 9
    assert chosen("hydrocarbons", source="everything-else", elements="any")[0].name == "everything-else"
    assert len(chosen("hydrocarbons", source="everything-else", elements="within")[0].ids) in range(1, 10)


def test_a_filter_that_is_replayed_whole_leaves_out_what_the_target_is_tested_on(db, chosen):
    found, said = chosen(source="all")
    assert not materials(db, found.ids) & materials(db, held_out(db, "target"))
    assert not any("WARNING" in line for line in said)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"how": "farthest"}, "--replay-pick farthest says how to pick, but not how many; give --replay-size"),
        ({"how": "farthst"}, "'farthst' is unknown. Did you mean 'farthest'"),
        ({"elements": "withn"}, "'withn' are unknown. Did you mean 'within'"),
    ],
)
def test_a_choice_that_would_do_nothing_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        check_choice(ReplayChoice(source="all", **settings))


def label_with_errors(db, name, *, errors):
    """Labels of a method of that name, whose forces are wrong by so much, and the disagreement ``both`` of it."""
    pairs = zip(errors.items(), db.read(list(errors)), strict=True)
    labels = [
        NewLabel(structure_id=number, part=0, label=Label(energy_uncorrected=0.0, forces=label.forces + error))
        for (number, error), (_, label) in pairs
    ]
    method = db.method_id(Method(kind="dft", name=name))
    db.append_labels(labels, method_id=method)
    disagree(db, [min(db.methods()), method], name="both")
