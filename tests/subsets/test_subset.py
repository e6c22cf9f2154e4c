import hashlib
import warnings

import numpy as np
import pytest

import mlipdb
from mlipdb.errors import ConfigError, NotFoundError, QueryError
from mlipdb.subsets import SplitLeakWarning, diff, freeze, load, materials_per_part, names, overview, resolve


def materials(db, ids):
    return {db.entry(identity).material for identity in ids.tolist()}


def test_a_frozen_subset_holds_what_the_filter_matched(db):
    subset = freeze(db, "yttrium", filter="Y AND gap>=1")
    np.testing.assert_array_equal(subset.ids, db.query("Y AND gap>=1").ids)
    assert subset.ids.dtype == np.int64
    assert (np.diff(subset.ids) > 0).all()


def test_the_parts_are_disjoint_and_cover_the_subset(db):
    subset = freeze(db, "yttrium", filter="Y", fractions=(60, 20, 20))
    assert list(subset.splits) == ["train", "validation", "test"]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(subset.splits.values()))), subset.ids)
    assert all((np.diff(ids) > 0).all() for ids in subset.splits.values())


def test_no_material_is_in_two_parts(db):
    parts = [materials(db, ids) for ids in freeze(db, "every", filter="all", fractions=(50, 25, 25)).splits.values()]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 100


def test_new_data_moves_nothing_between_the_parts(db, append):
    before = freeze(db, "before", filter="all", fractions=(50, 25, 25))
    append(db, 400, 600)
    after = freeze(db, "after", filter="all", fractions=(50, 25, 25))
    assert len(after.ids) == 600
    for part, ids in before.splits.items():
        assert set(ids) <= set(after.splits[part])
    assert not len(diff(db, "before", "after").moved)


def test_a_subset_stays_as_it_was_when_data_comes(db, append):
    before = freeze(db, "yttrium", filter="Y")
    append(db, 400, 440)
    after = load(db, "yttrium")
    np.testing.assert_array_equal(after.ids, before.ids)
    assert after.describe() == before.describe()


def test_the_same_data_in_another_database_has_the_same_hash(db, tmp_path, append):
    other = mlipdb.create(tmp_path / "other")
    append(other, 100, 400)
    append(other, 0, 100)
    one, two = freeze(db, "yttrium", filter="Y"), freeze(other, "yttrium", filter="Y")
    assert not np.array_equal(one.ids, two.ids)
    assert one.hash == two.hash
    by_part = [{part: {d.entry(i).external_id for i in ids.tolist()} for part, ids in s.splits.items()}
               for d, s in ((db, one), (other, two))]  # fmt: skip
    assert by_part[0] == by_part[1]
    other.close()


def test_the_hash_is_of_the_sorted_sources_ids_and_contents(db):
    """A change would make every recorded run look as if its data had changed."""
    subset = freeze(db, "yttrium", filter="Y")
    entries = [db.entry(identity) for identity in subset.ids.tolist()]
    lines = sorted(f'["made", "{entry.external_id}", "{entry.content_hash}"]\n' for entry in entries)
    assert subset.hash == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_one_structure_more_is_another_hash(db):
    assert freeze(db, "one", filter="id<=40").hash != freeze(db, "two", filter="id<=41").hash


def test_freezing_again_with_the_same_content_gives_the_same_subset(db):
    first = freeze(db, "yttrium", filter="Y")
    again = freeze(db, "yttrium", filter='elements HAS "Y"')
    assert again.id == first.id
    assert again.filter == "Y"
    assert names(db) == ["yttrium"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filter": "O"}, "it has 200 structures, the filter now matches 300"),
        ({"filter": "Y", "seed": 1}, "seed is 0, not 1"),
        ({"filter": "Y", "fractions": (80, 10, 10)}, "fractions is 90/5/5, not 80/10/10"),
    ],
)
def test_a_name_is_never_given_other_content(db, settings, message):
    before = freeze(db, "yttrium", filter="Y")
    with pytest.raises(ConfigError, match=message):
        freeze(db, "yttrium", **settings)
    np.testing.assert_array_equal(load(db, "yttrium").ids, before.ids)


def test_a_split_by_frame_warns_that_it_leaks_and_parts_the_frames_of_a_material(db):
    with pytest.warns(SplitLeakWarning, match="frames of one relaxation"):
        subset = freeze(db, "leaky", filter="all", split_by="frame", fractions=(50, 25, 25))
    train, _, test = (materials(db, ids) for ids in subset.splits.values())
    assert train & test


def test_a_split_by_material_does_not_warn(db):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        freeze(db, "every", filter="all")


def test_a_part_that_is_empty_is_named(db):
    subset = freeze(db, "tiny", filter="id<=4")
    assert len(subset.empty_parts) == 2
    assert freeze(db, "whole", filter="id<=4", fractions=(100, 0, 0)).empty_parts == ()
    assert freeze(db, "every", filter="all", fractions=(50, 25, 25)).empty_parts == ()


def test_a_frozen_subset_can_be_queried_by_its_name(db):
    subset = freeze(db, "yttrium", filter="Y")
    np.testing.assert_array_equal(db.query("yttrium").ids, subset.ids)
    assert set(db.query("yttrium AND NOT Li").ids) < set(subset.ids)


def test_a_subset_of_a_subset_keeps_its_members(db):
    freeze(db, "first", filter="id<=100")
    assert len(freeze(db, "second", filter="first AND Y").ids) == len(db.query("id<=100 AND Y"))


@pytest.mark.parametrize("name", ["Y", "YO", "Li-O", "Pm-3m", "all", "gap", "2Y", "a b"])
def test_a_name_that_means_something_in_a_filter_is_refused(db, name):
    with pytest.raises(QueryError, match="cannot be used"):
        freeze(db, name, filter="Y")
    assert names(db) == []


def test_a_filter_that_matches_nothing_is_not_frozen(db):
    with pytest.raises(QueryError, match="matches no structure"):
        freeze(db, "nothing", filter="Zr")
    with pytest.raises(QueryError, match="matches no structure"):
        resolve(db, "Zr")


def test_an_unknown_name_is_answered_with_a_close_one(db):
    freeze(db, "yttrium", filter="Y")
    with pytest.raises(NotFoundError, match="Did you mean 'yttrium'"):
        load(db, "ytrium")


def test_a_name_resolves_to_its_subset(db):
    assert resolve(db, freeze(db, "yttrium", filter="Y", seed=5).name).seed == 5


def test_a_filter_resolves_to_the_same_subset_until_data_comes(db, append):
    first = resolve(db, "Y AND gap>=1")
    assert resolve(db, "Y AND gap>=1").id == first.id
    assert first.name.startswith("filter-Y-AND-gap-1-")
    assert first.split_by == "material"
    append(db, 400, 440)
    second = resolve(db, "Y AND gap>=1")
    assert second.name != first.name
    np.testing.assert_array_equal(load(db, first.name).ids, first.ids)
    np.testing.assert_array_equal(db.query(first.name).ids, first.ids)


def test_a_difference_says_what_only_one_has(db):
    freeze(db, "low", filter="id<=60")
    freeze(db, "high", filter="id>40 AND id<=100", seed=1, fractions=(50, 25, 25))
    found = diff(db, "low", "high")
    np.testing.assert_array_equal(found.only_first, np.arange(1, 41))
    np.testing.assert_array_equal(found.only_second, np.arange(61, 101))
    np.testing.assert_array_equal(found.both, np.arange(41, 61))
    part = {i: p for s in (load(db, "low"),) for p, ids in s.splits.items() for i in ids}
    other = {i: p for s in (load(db, "high"),) for p, ids in s.splits.items() for i in ids}
    assert found.moved.tolist() == [i for i in range(41, 61) if part[i] != other[i]]
    assert not found.same
    assert diff(db, "low", "low").same


def test_the_overview_lists_every_subset(db):
    freeze(db, "yttrium", filter="Y")
    freeze(db, "oxygen", filter="O", seed=2)
    assert [(row["name"], row["filter"], row["size"], row["seed"]) for row in overview(db)] == [
        ("oxygen", "O", 300, 2),
        ("yttrium", "Y", 200, 0),
    ]


def test_the_materials_of_each_part_are_counted(db):
    subset = freeze(db, "every", filter="all", fractions=(50, 25, 25))
    assert materials_per_part(db, subset) == {part: len(materials(db, ids)) for part, ids in subset.splits.items()}
