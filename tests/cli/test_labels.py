import json
from dataclasses import replace

import numpy as np
import pytest

import mlipdb
from mlipdb.labelling import label
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel, NewStructure
from mlipdb.testing.potential import PairPotential
from mlipdb.testing.teachers import crystal, molecule, slab


@pytest.fixture
def database(tmp_path):
    """A crystal, a molecule and a slab with PBE energies, labelled by the pair potential with two rows each."""
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source("made", reader="none", uri="made in the test")
    records = [
        NewStructure(
            structure=structure,
            label=Label(energy_uncorrected=-5.0 * len(structure), forces=np.zeros((len(structure), 3))),
            external_id=str(key),
            material=str(key),
        )
        for key, structure in enumerate([crystal(), molecule(), slab()])
    ]
    ids = db.append(records, source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE")))
    label(db, PairPotential(), ids=np.array(ids), hessian_rows=2)
    yield db
    db.close()


def test_list_prints_a_line_for_each_method(command):
    lines = command("labels", "list").stdout.splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:5] == ["1", "PBE", "dft", "3", "0"]
    assert "with structures" in lines[1]
    assert lines[2].split()[:6] == ["2", "pair-potential", "teacher", "3", "0", "6"]


def test_list_and_show_give_json(command):
    [source, teacher] = json.loads(command("labels", "list", "--json").stdout)
    assert (source["with_structures"], teacher["hessian_rows"]) == (True, 6)
    assert teacher["method"]["e0_convention"] == "e0 included"
    found = json.loads(command("labels", "show", 2, "--json").stdout)
    assert found["quantities"]["atomic_energies"] == 3


def test_show_tells_the_weights_and_what_there_is(command):
    shown = command("labels", "show", "pair-potential").stdout
    for words in ("mlipdb.testing", "e0 included", "labels of 3 structures", "6 of 3 structures", "failed 0"):
        assert words in shown, words


def test_drop_without_yes_says_what_would_go_and_drops_nothing(command, database):
    result = command("labels", "drop", "pair-potential")
    assert result.exit_code == 1
    assert "would drop 3 labels and 0 failures of method 2 (pair-potential)" in result.stderr
    assert "repeat it with --yes" in result.stderr
    assert len(database.labels(1)) == 2


def test_drop_takes_the_labels_out_and_gc_their_files(command, database):
    result = command("labels", "drop", "pair-potential", "--yes")
    assert result.exit_code == 0, result.output
    assert len(database.labels(1)) == 1
    assert "1 leftovers removed" in command("gc").stdout
    assert "all well" in command("verify", "--deep").stdout


def test_compare_prints_a_verdict_for_each_quantity_and_exits_0_where_none_fails(command):
    result = command("labels", "compare", "source", "pair-potential")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "pair-potential (2) against source: 3 structures of 'all' have both"
    assert lines[1].split()[:3] == ["quantity", "of", "structures"]
    [symmetry] = [line for line in lines if line.startswith("Hessian symmetry")]
    assert "pair-potential (2)" in symmetry
    assert "good" in symmetry


def test_compare_exits_1_where_a_quantity_fails(command, database):
    taught = [label for _, label in database.read([1, 2, 3], method_id=2)]
    turned = [replace(found, atomic_energies=found.atomic_energies + 1.0) for found in taught]
    records = [NewLabel(structure_id=key, part=0, label=found) for key, found in enumerate(turned, start=1)]
    database.append_labels(records, method_id=database.method_id(Method(kind="teacher", name="turned")))
    result = command("labels", "compare", "PBE", "turned", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["ok"], found["structures"], found["first"]) == (False, 3, "PBE (1)")
    assert [line["quantity"] for line in found["lines"] if line["verdict"] == "fails"] == ["sum of atomic energies"]


def test_compare_takes_a_subset_and_a_sample(command):
    assert json.loads(command("labels", "compare", 1, 2, "--subset", "nelements=1", "--json").stdout)["structures"] < 3
    found = json.loads(command("labels", "compare", 1, 2, "--sample", 2, "--json").stdout)
    assert (found["structures"], found["sampled"]) == (3, 2)


def test_the_page_of_a_comparison_holds_the_table_and_the_plots(command, tmp_path):
    pytest.importorskip("pymatviz")
    result = command("labels", "compare", 1, 2, "--html", tmp_path / "page.html", "--json")
    assert result.exit_code == 0, result.output
    assert "page.html" in result.stderr
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    for words in ("pair-potential (2) against PBE (1)", 'id="energy-aligned"', 'id="forces"', '<td class="good">good'):
        assert words in page, words
