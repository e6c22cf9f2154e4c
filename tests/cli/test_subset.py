import json

import pytest

from mlipdb.subsets import load


@pytest.fixture
def database(rock_salts):
    """300 rock salts of 100 materials."""
    return rock_salts(300)


@pytest.fixture
def subset(command):
    return lambda *words: command("subset", *words)


def test_a_subset_is_frozen_and_shown(database, subset):
    frozen = json.loads(subset("freeze", "yttrium", "Y", "--fractions", "50/25/25", "--seed", "7", "--json").stdout)
    assert frozen == json.loads(subset("show", "yttrium", "--json").stdout)
    stored = load(database, "yttrium")
    assert frozen["hash"] == stored.hash
    assert frozen["splits"] == {part: len(ids) for part, ids in stored.splits.items()}
    assert sum(frozen["materials"].values()) == 20
    assert (frozen["fractions"], frozen["seed"], frozen["split_by"]) == ("50/25/25", 7, "material")
    assert stored.hash in subset("show", "yttrium").stdout


def test_the_list_names_every_subset(subset):
    assert "no frozen subset" in subset("list").stderr
    subset("freeze", "yttrium", "Y")
    subset("freeze", "big", "all")
    assert [row["name"] for row in json.loads(subset("list", "--json").stdout)["subsets"]] == ["big", "yttrium"]
    assert [line.split()[0] for line in subset("list").stdout.splitlines()] == ["big", "yttrium"]


def test_a_difference_lists_ids(subset):
    subset("freeze", "low", "id<=20")
    subset("freeze", "high", "id>15 AND id<=20")
    found = json.loads(subset("diff", "low", "high", "--json").stdout)
    assert found["only_first"] == list(range(1, 16))
    assert found["only_second"] == []
    assert found["both"] == 5
    assert not found["same"]
    assert "only in low      15: 1 2 3" in subset("diff", "low", "high").stdout


def test_a_split_by_frame_warns_on_stderr(subset):
    result = subset("freeze", "leaky", "Y", "--split-by", "frame", "--json")
    assert "frames of one relaxation" in result.stderr
    assert json.loads(result.stdout)["split_by"] == "frame"


def test_an_empty_part_is_said_on_stderr(subset):
    result = subset("freeze", "tiny", "id<=3", "--json")
    assert len(json.loads(result.stdout)["empty_parts"]) == 2
    assert result.stderr.count("part is empty: 1 materials are too few") == 2


@pytest.mark.parametrize(
    "words", [("show", "nothing"), ("freeze", "Y", "O"), ("freeze", "a", "Y", "--fractions", "9/1")]
)
def test_what_cannot_be_done_fails(subset, words):
    assert subset(*words).exit_code == 1


def test_the_statistics_of_a_training_are_shown(database, subset, tmp_path):
    subset("freeze", "all-of-it", "all", "--fractions", "100/0/0")
    found = json.loads(subset("stats", "all-of-it", "--cutoff", "4", "--json").stdout)
    assert found["structures"] == 300
    assert found["rank"] == found["elements"] - 1  # rock salts: one halogen for one alkali
    text = subset("stats", "all-of-it", "--cutoff", "4")
    assert f"neighbours   {found['neighbours']:.4g} per atom" in text.stdout
    assert "warning: the data decide 8 of 9 E0s" in text.stderr
    energies = tmp_path / "e0.json"
    energies.write_text(json.dumps(dict.fromkeys(["Li", "Na", "K", "Rb", "Y", "F", "Cl", "Br", "I"], -3.0)))
    given = json.loads(subset("stats", "all-of-it", "--cutoff", "0", "--e0", str(energies), "--json").stdout)
    assert given["neighbours"] is None
    assert given["e0"]["39"] == -3.0


def test_a_split_is_chosen_on_the_command_line(subset, tmp_path):
    frozen = json.loads(subset("freeze", "no-yttrium", "all", "--split-by", "element:Y", "--json").stdout)
    assert frozen["split_by"] == "element:Y"
    assert frozen["splits"]["test"] == 60
    path = tmp_path / "parts.json"
    path.write_text(
        json.dumps({"train": [f"material-{i}" for i in range(90)], "test": [f"material-{i}" for i in range(90, 100)]})
    )
    official = json.loads(subset("freeze", "official", "all", "--split-file", str(path), "--json").stdout)
    assert official["splits"] == {"train": 270, "validation": 0, "test": 30}
    assert official["empty_parts"] == []
