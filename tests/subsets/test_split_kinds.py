"""Splits by chemical system, element, fold, and the official ones of a source, in the database."""

import json
import warnings

import numpy as np
import pytest
from sqlalchemy import select, update

import mlipdb
from mlipdb.catalog import Material, StructureRow
from mlipdb.errors import ConfigError
from mlipdb.labels import Method
from mlipdb.records import NewStructure
from mlipdb.structures import make_structure
from mlipdb.subsets import SplitLeakWarning, freeze, load
from mlipdb.subsets.splits import PARTS

COMPOUNDS = [[39, 8], [26, 8], [3, 39], [8, 8], [11, 17], [12, 8], [19, 9], [14, 6]]


def record(number):
    """Frame of a material of three frames; the first eight materials are the compounds, then they repeat."""
    material = number // 3
    structure = make_structure(
        COMPOUNDS[material % 8], [[0, 0, 0], [2.0 + 0.01 * number, 2, 2]], cell=4 * np.eye(3), pbc=(True, True, True)
    )
    part = ("train", "train", "train", "val", "test")[material % 5]
    return NewStructure(
        structure=structure,
        label=None,
        external_id=f"frame-{number}",
        material=f"mp-{material}",
        tags={"split": part, "batch": f"b{number % 2}"},
        row=1000 + number,
    )


@pytest.fixture
def tagged(tmp_path):
    """120 frames of 40 materials with official splits by tag and by row."""
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source("made", reader="none", uri="made in the test")
    method = db.method_id(Method(kind="dft", name="PBE"))
    db.append([record(number) for number in range(120)], source_id=source, method_id=method)
    yield db
    db.close()


def facts(db, column):
    with db.session() as session:
        query = select(StructureRow.id, column).join(Material, Material.id == StructureRow.material_id)
        return {row[0]: row[1] for row in session.execute(query)}


def part_of(subset):
    return {int(number): part for part in PARTS for number in subset.splits[part]}


@pytest.mark.parametrize("by", ["system", "fold:2/4", "material"])
def test_what_should_stay_together_does(tagged, by):
    subset = freeze(tagged, "together", filter="all", split_by=by, fractions=(50, 25, 25))
    column = StructureRow.chemical_system if by == "system" else Material.key
    keys, parts = facts(tagged, column), part_of(subset)
    for key in set(keys.values()):
        assert len({parts[number] for number, value in keys.items() if value == key}) == 1


def test_an_element_left_out_is_in_no_structure_to_train_on(tagged):
    subset = freeze(tagged, "no-yttrium", filter="all", split_by="element:Y,K")
    assert set(subset.splits["test"]) == set(tagged.query("Y OR K").ids)
    assert len(subset.splits["train"]) > len(subset.splits["validation"]) >= 0


def test_the_folds_are_a_partition_and_each_is_repeatable(tagged):
    tests = [set(freeze(tagged, f"fold-{k}", filter="all", split_by=f"fold:{k}/3").splits["test"]) for k in (1, 2, 3)]
    assert set.union(*tests) == set(tagged.query("all").ids)
    assert sum(map(len, tests)) == 120
    again = freeze(tagged, "fold-2", filter="all", split_by="fold:2/3")
    assert set(again.splits["test"]) == tests[1]


def test_another_seed_makes_other_folds(tagged):
    one = freeze(tagged, "one", filter="all", split_by="fold:1/3")
    other = freeze(tagged, "other", filter="all", split_by="fold:1/3", seed=1)
    assert one.hash == other.hash
    assert set(one.splits["test"]) != set(other.splits["test"])


def test_new_data_moves_no_structure_to_another_fold(tagged):
    before = part_of(freeze(tagged, "half", filter="id<=60", split_by="fold:1/3"))
    after = part_of(freeze(tagged, "whole", filter="all", split_by="fold:1/3"))
    assert all(after[number] == part for number, part in before.items())


def test_the_official_split_of_a_source_is_taken_from_its_tags(tagged):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subset = freeze(tagged, "official", filter="all", split_by="tag:split")
    assert {part: len(ids) for part, ids in subset.splits.items()} == {"train": 72, "validation": 24, "test": 24}
    assert subset.fractions == (60.0, 20.0, 20.0)
    assert load(tagged, "official").split_by == "tag:split"


def test_a_tag_that_is_no_split_is_refused(tagged):
    with pytest.raises(ConfigError, match="'b0' is not a part of a split"):
        freeze(tagged, "wrong", filter="all", split_by="tag:batch")
    with pytest.raises(ConfigError, match="says nothing of 120 of 120 structures"):
        freeze(tagged, "wrong", filter="all", split_by="tag:splits")


@pytest.fixture
def split_file(tmp_path):
    def write(content):
        path = tmp_path / "split.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_a_file_of_row_positions_splits_by_them(tagged, split_file):
    path = split_file(
        {"train": list(range(1000, 1090)), "valid": list(range(1090, 1100)), "test": list(range(1100, 1120))}
    )
    with pytest.warns(SplitLeakWarning, match="1 materials have frames in more than one part"):  # rows 1099 to 1101
        subset = freeze(tagged, "rows", filter="all", split_file=path)
    rows = facts(tagged, StructureRow.source_row)
    assert all(rows[number] >= 1100 for number in subset.splits["test"])
    assert len(subset.splits["test"]) == 20
    assert subset.split_by.startswith("file:split.json sha256:")
    assert subset.fractions == (75.0, 8.33, 16.67)


def test_rows_that_two_files_share_are_refused(tagged, split_file):
    path = split_file({"train": list(range(1000, 1100)), "test": list(range(1100, 1120))})
    with tagged.write() as session:
        session.execute(update(StructureRow).where(StructureRow.id == 7).values(source_row=1003))
    with pytest.raises(ConfigError, match=r"row 1003 is both 'frame-3' and 'frame-6'.*of two files; narrow the filter"):
        freeze(tagged, "rows", filter="all", split_file=path)


def test_a_file_of_ids_may_name_frames_or_materials(tagged, split_file):
    named = {"train": [f"mp-{i}" for i in range(1, 40)], "test": ["frame-0", "frame-1", "frame-2"]}
    subset = freeze(tagged, "names", filter="all", split_file=split_file(named))
    assert subset.splits["test"].tolist() == [1, 2, 3]


def test_the_same_file_again_gives_the_same_subset_and_a_changed_one_is_refused(tagged, split_file):
    content = {"train": [f"mp-{i}" for i in range(39)], "test": ["mp-39"]}
    first = freeze(tagged, "names", filter="all", split_file=split_file(content))
    assert freeze(tagged, "names", filter="all", split_file=split_file(content)).id == first.id
    changed = {"train": content["train"][1:], "test": ["mp-39", "mp-0"]}
    with pytest.raises(ConfigError, match="split_by is file:split"):
        freeze(tagged, "names", filter="all", split_file=split_file(changed))


def test_structures_that_a_file_does_not_name_are_an_error_that_counts_them(tagged, split_file):
    path = split_file({"train": ["mp-0"], "test": ["mp-1"]})
    with pytest.raises(ConfigError, match=r"nothing of 114 of 120 structures \(first 'frame-6'\)"):
        freeze(tagged, "few", filter="all", split_file=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ([1, 2], "a split is an object"),
        ({"learn": [1]}, "'learn' is not a part of a split"),
        ({"train": 3}, "not a list of row numbers or of ids"),
        ({"train": [1, 2], "test": [2]}, "2 is in train and in test"),
    ],
)
def test_a_split_file_that_makes_no_sense_says_why(tagged, split_file, content, message):
    with pytest.raises(ConfigError, match=message):
        freeze(tagged, "wrong", filter="all", split_file=split_file(content))


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("materials", "Did you mean 'material'"),
        ("element:Q", "'Q' is not an element"),
        ("element:", "'' is not an element"),
        ("fold:6/5", "fold:1/5"),
        ("fold:1/1", "nothing to train on"),
        ("fold", "fold:1/5"),
        ("tag", "the name of a tag"),
        ("file", "--split-file"),
        ("material:3", "takes nothing more"),
        ("element:Au", "no member holds Au"),
    ],
)
def test_a_split_that_cannot_be_says_what_to_write(tagged, by, message):
    with pytest.raises(ConfigError, match=message):
        freeze(tagged, "wrong", filter="all", split_by=by)
