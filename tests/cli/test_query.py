import json

import pytest


@pytest.fixture
def database(rock_salts):
    """60 rock salts; every fifth material has yttrium."""
    return rock_salts(60)


@pytest.fixture
def query(command):
    return lambda *words: command("query", *words)


def test_count_prints_the_number_alone(database, query):
    result = query("Y", "--count")
    assert result.stdout == f"{len(database.query('Y'))}\n" == "12\n"


def test_a_table_is_aligned_and_ends_with_the_number_on_stderr(query):
    result = query("Y", "--limit", "3")
    header, *rows = result.stdout.splitlines()
    assert len(rows) == 3
    assert [row[header.index("formula") :].split()[0] for row in rows] == ["FY", "FY", "FY"]
    assert [row[header.index("space group") :][:11] for row in rows] == ["Fm-3m (225)"] * 3
    assert rows[0].split()[1] == "frame-12"
    assert result.stderr == "12 structures, the first 3 shown; --limit 0 shows all\n"


def test_a_screenful_is_shown_unless_more_is_asked_for(query):
    assert len(query().stdout.splitlines()) == 1 + 20
    assert len(query("all", "--limit", "0").stdout.splitlines()) == 1 + 60


def test_json_is_one_object_with_every_structure(database, query):
    answer = json.loads(query("Y AND gap>=4", "--json").stdout)
    ids = database.query("Y AND gap>=4").ids.tolist()
    assert answer["count"] == len(ids)
    assert [structure["id"] for structure in answer["structures"]] == ids
    entry, label = database.entry(ids[0]), database.labels(ids[0])[0]
    assert answer["structures"][0] == {
        "id": entry.id,
        "external_id": entry.external_id,
        "chemical_formula_reduced": entry.chemical_formula_reduced,
        "space_group_it_number": 225,
        "space_group_symbol": "Fm-3m",
        "nsites": 2,
        "energy": label.energy_uncorrected,
        "band_gap": label.band_gap,
    }


def test_json_with_count_has_no_structures(query):
    assert json.loads(query("Y", "--json", "--count").stdout) == {"filter": "Y", "count": 12}


def test_nothing_found_prints_no_table(query):
    result = query("Zr")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == "0 structures\n"


def test_a_bad_filter_fails_with_the_place(query):
    result = query("Y AND gap >= big")
    assert result.exit_code != 0
    assert "not with another field" in str(result.exception)
    assert result.stdout == ""
