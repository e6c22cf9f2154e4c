"""`mlipdb labels disagree`, `disagreements` and `disputed` on a database with labels of two teachers."""

import json

import numpy as np
import pytest

from mlipdb.labelling.runner import label
from mlipdb.testing.potential import PairPotential


@pytest.fixture
def database(rock_salts):
    """Thirty rock salts; two potentials have labelled them, the second not the last three."""
    db = rock_salts(30)
    label(db, PairPotential(strength=0.2), ids=np.arange(1, 31))
    label(db, PairPotential(strength=0.4), ids=np.arange(1, 28))
    return db


def numbers_of(database):
    return [str(number) for number, method in database.methods().items() if method.kind == "teacher"]


def test_disagree_stores_what_a_filter_asks_for_and_says_how(command, database):
    result = command("labels", "disagree", *numbers_of(database), "--name", "pair", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["name"], report["structures"], report["fresh"], report["problem"]) == ("pair", 27, 27, None)
    shown = command("labels", "disagree", *numbers_of(database), "--name", "pair")
    assert "structures   27 (0 worked out)" in shown.stdout
    assert "mlipdb query '_mlipdb_disagreement_pair > 0.1'" in shown.stderr
    found = json.loads(command("query", "_mlipdb_disagreement IS UNKNOWN", "--json").stdout)
    assert [each["id"] for each in found["structures"]] == [28, 29, 30]


def test_disputed_lists_the_farthest_apart_first(command, database):
    command("labels", "disagree", *numbers_of(database), "--name", "pair")
    found = json.loads(command("labels", "disputed", "pair", "--most", 5, "--json").stdout)["structures"]
    forces = [each["forces"] for each in found]
    assert len(found) == 5
    assert forces == sorted(forces, reverse=True)
    threshold = f"_mlipdb_disagreement >= {forces[-1]!r}"
    assert json.loads(command("query", threshold, "--count", "--json").stdout)["count"] >= 5
    each = json.loads(command("labels", "disputed", "pair", "--one-per-material", "--json").stdout)["structures"]
    assert len({one["material"] for one in each}) == len(each) == 9
    table = command("labels", "disputed", "pair", "--by", "energy", "--most", 2).stdout.splitlines()
    assert table[0].split()[:3] == ["id", "external", "id"]
    assert len(table) == 3
    assert "forces or by energy" in str(command("labels", "disputed", "pair", "--by", "stress").exception)


def test_disagreements_takes_in_new_labels_and_forgets_by_name(command, database):
    command("labels", "disagree", *numbers_of(database), "--name", "pair")
    label(database, PairPotential(strength=0.4), ids=np.arange(28, 31))
    [report] = json.loads(command("labels", "disagreements", "--json").stdout)["disagreements"]
    assert (report["structures"], report["fresh"]) == (30, 0), "the run that labelled has brought it up to date"
    assert "of methods   2, 3 on 'all'" in command("labels", "disagreements").stdout
    assert json.loads(command("labels", "disagreements", "--forget", "pair", "--json").stdout) == {"disagreements": []}
    assert "no disagreement 'pair'" in str(command("labels", "disputed", "pair").exception)


def test_a_name_that_several_methods_share_is_refused_with_their_numbers(command, database):
    result = command("labels", "disagree", "pair-potential", "PBE")
    assert result.exit_code == 1
    assert "give the number" in str(result.exception)
