import re
from dataclasses import replace

import pytest

from mlipdb.errors import ConfigError, NotFoundError, TrainError
from mlipdb.subsets import subset as subsets
from mlipdb.trainers.evaluate import evaluate
from mlipdb.trainers.report import gather_report, write_report
from mlipdb.trainers.report.page import page
from mlipdb.trainers.runs import start_run

PLOTS = {"curve-loss", "curve-energy_mae", "curve-forces_mae", "curve-stress_mae", "curve-rate", "parity-energy",
         "parity-forces", "parity-stress", "elements-forces", "elements-energy", "throughput"}  # fmt: skip


@pytest.fixture(scope="module")
def report(trained):
    db = trained[0]
    evaluate(db, "whole", subset="toy", splits=("train",))
    return gather_report(db, "whole")


@pytest.fixture(scope="module")
def text(report):
    return page(report)


def test_the_page_has_every_plot_and_needs_no_other_file(text):
    assert set(re.findall(r'<div id="([a-z-]+_?[a-z]*)" class="plotly', text)) == PLOTS
    body = text[text.index("<body>") :]
    assert not re.search(r'(src|href)="', body)


def test_the_page_names_recipe_subset_labels_and_worst_structures(report, text):
    assert (report.part, report.part_size) == ("test", len(report.subset.splits["test"]))
    worst = report.worst_forces[0]
    row = next(line for line in text.splitlines() if f"<td>{worst.id}</td><td>{worst.external_id}</td>" in line)
    assert f"{worst.largest_force_error:,.2f}" in row
    for words in (
        "hidden_irreps = &quot;4x0e&quot;", report.subset.hash, "made by mlipdb.testing", "pair-potential", "toy-dft",
        "after an offset per element", "train, mlipdb evaluate", "structures a second", "not stated",
    ):  # fmt: skip
        assert words in text, words


def test_labels_are_named_with_what_they_were_used_for(report):
    assert [(use.method.name, use.use) for use in report.methods] == [
        ("toy-dft", "labels"),
        ("pair-potential", "teacher"),
    ]
    assert [use.structures for use in report.methods] == [len(report.subset.ids)] * 2
    assert report.methods[1].hessian_rows == 2 * len(report.subset.ids)
    assert [(source.name, source.structures) for source in report.sources] == [("toy", len(report.subset.ids))]


def test_a_sample_is_fixed_by_its_seed(trained):
    db = trained[0]
    first, same, other = (gather_report(db, "whole", part="train", sample=5, seed=seed) for seed in (1, 1, 2))
    assert first.predictions.ids.tolist() == same.predictions.ids.tolist() != other.predictions.ids.tolist()
    assert (len(first.predictions), first.part) == (5, "train")
    assert "a sample of 5 of the" in page(first)


def test_names_from_outside_cannot_become_html(report):
    bad = replace(report.worst_forces[0], external_id="<script>alert(1)</script>")
    assert "<script>alert" not in page(replace(report, worst_forces=[bad]))


def test_a_place_that_cannot_be_written_is_an_error_with_the_option(report, tmp_path):
    with pytest.raises(ConfigError, match="give --to a file in a folder that exists"):
        write_report(tmp_path / "absent" / "report.html", report)


def test_what_cannot_be_reported_is_refused_with_the_next_step(trained):
    db = trained[0]
    with pytest.raises(NotFoundError, match="Did you mean 'whole'"):
        gather_report(db, "whol")
    with pytest.raises(ConfigError, match="test"):
        gather_report(db, "whole", part="tset")
    toy = subsets.load(db, "toy")
    config = {"recipe": {"data": {"energy": "energy_uncorrected"}}, "method_id": None, "teacher_id": None}
    folder = db.path / "runs" / "early"
    start_run(db, "early", kind="train", config=config, subset=toy, methods={}, path=folder)
    with pytest.raises(TrainError, match="no checkpoint yet"):
        gather_report(db, "early")
