from dataclasses import replace

import jax
import numpy as np
import pytest

from mlipdb.errors import ConfigError, NotFoundError, QueryError
from mlipdb.labelling.disagreement import disagree
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel
from mlipdb.subsets.subset import freeze_chosen, load
from mlipdb.testing.training import tiny_nequix, training_database
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.records import Record, RecordSource
from mlipdb.trainers.models.nequix import Nequix, NequixConfig
from mlipdb.trainers.replay import ReplayWish, pick
from mlipdb.trainers.replay.descriptors import Block, Descriptors, descriptors
from mlipdb.trainers.replay.farthest import farthest

OH, CH, CO = {1, 8}, {1, 6}, {6, 8}


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    return training_database(tmp_path_factory.mktemp("replay") / "db")


@pytest.fixture(scope="module")
def model():
    config = tiny_nequix((1, 6, 8), (0.0, 0.0, 0.0), avg_n_neighbors=10.0)
    return Nequix.create(config, key=jax.random.key(3))


def chosen(db, name, *, target=CO, model=None, **settings):
    wish = ReplayWish(**{"source": "all", "size": 6, **settings})
    return pick(db, wish, target_elements=target, model=model, name=name)


def elements_of(db, ids):
    return [set(structure.composition) for structure in db.structures(ids)]


def test_a_pick_has_exactly_the_size_and_holds_whole_materials_back_for_validation(db):
    found = chosen(db, "ten", size=10)
    assert len(found.ids) == len(set(found.ids.tolist())) == 10
    assert len(found.splits["train"]) + len(found.splits["validation"]) == 10
    assert len(found.splits["validation"]) >= 1
    materials = {part: {db.entry(int(i)).material for i in ids} for part, ids in found.splits.items()}
    assert not materials["train"] & materials["validation"]


def test_the_same_wish_gives_the_same_set_and_another_seed_another(db):
    first, again = chosen(db, "first"), chosen(db, "again")
    assert first.hash == again.hash
    assert first.splits["validation"].tolist() == again.splits["validation"].tolist()
    assert chosen(db, "other", seed=1).hash != first.hash


def test_the_same_pick_under_the_same_name_is_returned_and_another_is_refused(db):
    first = chosen(db, "kept")
    assert chosen(db, "kept").id == first.id
    with pytest.raises(ConfigError, match="frozen already"):
        chosen(db, "kept", seed=5)


@pytest.mark.parametrize(
    ("elements", "target", "fits"),
    [
        ("within", CO, lambda held: held <= CO),
        ("exactly", OH, lambda held: held == OH),
        ("containing", {8}, lambda held: 8 in held),
    ],
)
def test_elements_of_the_replay_set_fit_those_of_the_target(db, elements, target, fits):
    matching = [i for i, held in zip(range(1, 25), elements_of(db, range(1, 25)), strict=True) if fits(held)]
    found = chosen(db, f"by-{elements}", elements=elements, target=target, size=len(matching))
    assert found.ids.tolist() == matching


def test_too_few_structures_are_an_error_that_says_how_many_there_are(db):
    with pytest.raises(ConfigError, match=r"has 24 structures .*fewer than the 25 .*--replay-size 24"):
        chosen(db, "many", size=25)
    with pytest.raises(QueryError, match="no structure of exactly the elements N O"):
        chosen(db, "none", elements="exactly", target={7, 8})


def test_structures_of_elements_that_the_foundation_does_not_know_are_left_out(db, model):
    hydrocarbons = Nequix.skeleton(NequixConfig(**{**vars(model.config), "atomic_numbers": (1, 6), "e0": (0.0, 0.0)}))
    with pytest.raises(ConfigError, match="has 9 structures that the foundation knows"):
        chosen(db, "unknown", model=hydrocarbons, size=10)


def test_of_a_frozen_subset_only_the_train_part_is_replayed(db):
    toy = load(db, "toy")
    found = chosen(db, "from-toy", source="toy", size=len(toy.splits["train"]))
    assert found.ids.tolist() == toy.splits["train"].tolist()


def test_a_word_that_is_no_way_of_picking_is_refused_with_those_that_are(db):
    with pytest.raises(ConfigError, match=r"'farthst' is unknown\. Did you mean 'farthest'"):
        chosen(db, "word", how="farthst")
    with pytest.raises(ConfigError, match="needs the foundation"):
        chosen(db, "word", how="farthest")


def test_the_most_disputed_structures_are_those_with_the_largest_disagreement_of_forces(db):
    with pytest.raises(NotFoundError, match="labels disagree"):
        chosen(db, "disputed", how="disagreement")
    label_with_errors(db, errors={3: 0.1, 7: 0.5, 11: 0.4, 13: 0.3, 20: 0.2})
    assert chosen(db, "disputed", how="disagreement:both", size=3).ids.tolist() == [7, 11, 13]
    assert chosen(db, "the-only-one", how="disagreement", size=4).ids.tolist() == [7, 11, 13, 20]
    with pytest.raises(ConfigError, match="has 5 structures with that disagreement of forces, fewer than the 6"):
        chosen(db, "more", how="disagreement", size=6)
    with pytest.raises(NotFoundError, match="no disagreement 'bth'"):
        chosen(db, "typo", how="disagreement:bth")


def label_with_errors(db, *, errors):
    """Labels of another method, whose forces are wrong by so much, and the disagreement ``both`` of it."""
    pairs = zip(errors.items(), db.read(list(errors)), strict=True)
    labels = [
        NewLabel(structure_id=number, part=0, label=Label(energy_uncorrected=0.0, forces=label.forces + error))
        for (number, error), (_, label) in pairs
    ]
    noisy = db.method_id(Method(kind="dft", name="noisy"))
    db.append_labels(labels, method_id=noisy)
    disagree(db, [min(db.methods()), noisy], name="both")


def test_farthest_points_cover_every_cluster_before_a_second_of_any():
    clusters = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], np.float32)
    generator = np.random.default_rng(0)
    points = np.repeat(clusters, 10, axis=0) + generator.normal(0, 0.01, (30, 2)).astype(np.float32)
    found = Descriptors(30, {6: Block(np.arange(30), points)})
    assert {place // 10 for place in farthest(found, count=3, seed=4).tolist()} == {0, 1, 2}


def test_farthest_points_are_those_of_brute_force():
    generator = np.random.default_rng(1)
    dense = generator.normal(size=(12, 2, 3)).astype(np.float32)
    has = generator.random((12, 2)) < 0.6
    has[:, 0] |= ~has.any(axis=1)
    dense[~has] = 0.0
    found = Descriptors(12, {z: Block(np.flatnonzero(has[:, z]), dense[has[:, z], z]) for z in range(2)})
    chosen = farthest(found, count=12, seed=2).tolist()
    assert sorted(chosen) == list(range(12))
    flat = dense.reshape(12, -1)
    for turn in range(1, 12):
        before = flat[chosen[:turn]]
        distances = [np.linalg.norm(before - point, axis=1).min() for point in flat]
        assert distances[chosen[turn]] == pytest.approx(max(distances), abs=1e-5)


def test_structures_that_are_alike_are_each_chosen_once():
    found = Descriptors(5, {1: Block(np.arange(5), np.ones((5, 2), np.float32))})
    assert sorted(farthest(found, count=5, seed=0).tolist()) == list(range(5))


def test_a_structure_that_lacks_an_element_is_no_farther_than_features_are_long(db, model):
    """With a huge number in place of a missing element, composition alone would decide."""
    ids = np.arange(1, 25)
    found = descriptors(model, RecordSource(db, cutoff=3.0).stream(ids))
    lengths = np.concatenate([np.linalg.norm(block.means, axis=1) for block in found.blocks.values()])
    assert np.mean(lengths**2) == pytest.approx(1.0, rel=1e-5)
    assert max(found.squares()) < 2 * 3 * 4.0
    for number, block in found.blocks.items():
        held = [place for place, composition in enumerate(elements_of(db, ids)) if number in composition]
        assert block.structures.tolist() == held


def test_descriptors_do_not_see_how_a_structure_is_turned(db, model):
    structures = db.structures(np.arange(1, 7))
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turned = [replace(s, positions=s.positions @ turn, cell=s.cell @ turn) for s in structures]
    found, other = (descriptors(model, records(each)) for each in (structures, turned))
    for number in found.blocks:
        np.testing.assert_allclose(found.blocks[number].means, other.blocks[number].means, atol=1e-4)


def records(structures):
    for structure in structures:
        yield Record(structure=structure, label=None, teacher=None, neighbours=neighbours(structure, 3.0))


def test_the_farthest_structures_are_picked_by_the_foundation_and_stay_the_same(db, model):
    first = chosen(db, "far", how="farthest", model=model, size=8)
    assert chosen(db, "far-again", how="farthest", model=model, size=8).hash == first.hash
    assert {frozenset(held) for held in elements_of(db, first.ids)} == {frozenset(OH), frozenset(CH), frozenset(CO)}


def test_a_chosen_subset_of_one_material_is_all_learnt(db):
    ids = np.array([1, 2, 3])
    assert len({db.entry(i).material for i in ids.tolist()}) == 1
    assert freeze_chosen(db, "one-material", ids, about="by hand").splits["train"].tolist() == [1, 2, 3]
