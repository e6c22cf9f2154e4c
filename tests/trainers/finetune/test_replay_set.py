"""Which structures a fine-tuning replays."""

import numpy as np
import pytest

from mlipdb.subsets.subset import freeze, freeze_chosen, load
from mlipdb.trainers.checkpoint import load_model
from mlipdb.trainers.finetune.replay_set import ReplayChoice, replay_set


@pytest.fixture(scope="module")
def foundation(base):
    return load_model(base)


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
