import re
import sys

import pytest

import mlipdb
from mlipdb.errors import ConfigError, MissingExtraError
from mlipdb.labels import Label, Method
from mlipdb.records import NewStructure
from mlipdb.stats import compare_methods, statistics, write_page
from mlipdb.stats.page import page
from mlipdb.testing.samples import rock_salt, sample_records

EVIL = "<script>alert('x')</script>"


@pytest.fixture
def text(database):
    return page(statistics(database), parity=compare_methods(database, "1", "2"))


def plain(text):
    """The page without the JavaScript of plotly."""
    return text[: text.index("<script>")] + text[text.index("</head>") :]


def test_the_page_has_every_plot_and_needs_no_other_file(text):
    for name in ("elements", "sizes", "coverage", "energy-1", "max-force-1", "components-2", "parity-energy",
                 "parity-forces"):  # fmt: skip
        assert f'id="{name}"' in text, name
    assert "Plotly.newPlot" in text
    assert not re.search(r"(?:src|href)=", plain(text))
    assert len(text) > 3_000_000, "plotly's JavaScript is not in it"


def test_the_page_names_the_outliers_and_the_errors(text):
    assert "frame-3" in plain(text)
    assert "<td>0.25</td>" in plain(text)


def test_the_same_statistics_give_the_same_page(database, text):
    assert page(statistics(database), parity=compare_methods(database, "1", "2")) == text


def test_space_groups_are_drawn_where_there_are_some(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    db.append(sample_records(6), source_id=db.open_source("sample", reader="none", uri="x"))
    assert 'id="space-groups"' in page(statistics(db))
    db.close()


def test_names_from_outside_cannot_become_html(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source(EVIL, reader="none", uri="x", licence=EVIL)
    first, second = (db.method_id(Method(kind=kind, name=EVIL)) for kind in ("dft", "teacher"))
    record = {"structure": rock_salt(), "label": Label(energy_uncorrected=-1.0), "material": EVIL}
    db.append([NewStructure(external_id=EVIL, **record)], source_id=source, method_id=first)
    parity = compare_methods(db, "1", "1")
    assert second == 2
    shown = plain(page(statistics(db, f'_mlipdb_source="{EVIL}"'), parity=parity))
    assert EVIL not in shown
    assert "&lt;script&gt;" in shown
    db.close()


def test_nothing_matched_is_a_page_as_well(database):
    assert "0 structures match" in page(statistics(database, "Zr"))


def test_without_pymatviz_the_error_has_the_line_to_run(database, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pymatviz", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mlipdb\[plots\]'"):
        write_page(tmp_path / "page.html", statistics(database))
    assert not (tmp_path / "page.html").exists()


def test_a_place_that_cannot_be_written_is_an_error_with_its_name(database, tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere/page\.html: cannot be written"):
        write_page(tmp_path / "nowhere" / "page.html", statistics(database))
