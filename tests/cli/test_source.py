import json

import pytest
from typer.testing import CliRunner

from mlipdb.cli.app import app
from mlipdb.errors import NotFoundError

XYZ = "1\nProperties=species:S:1:pos:R:3 energy={0}\nH 0 0 {0}\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `mlipdb …` on a database of this test."""
    monkeypatch.setenv("MLIPDB_DB", str(tmp_path / "db"))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


def test_the_published_sources_are_listed_without_a_database(run, tmp_path):
    result = run("source", "list")
    assert result.exit_code == 0, result.output
    assert "salex" in result.stdout
    assert "SPICE 2" in result.stdout
    assert not (tmp_path / "db").exists()
    listed = json.loads(run("source", "list", "--json").stdout)
    assert {"name", "reader", "theory", "ingested"} <= set(listed[0])


def test_a_published_source_is_shown_with_origin_licence_theory_and_hash(run):
    text = run("source", "show", "spice").stdout
    for part in ("CC0", "ωB97M-D3(BJ)", "doi:10.1038/s41597-022-01882-6", "bfba2224b6540e1390a579569b475510"):
        assert part in text
    assert "not in this database; mlipdb ingest spice" in text
    many = run("source", "show", "omat24").stdout
    assert "… and 12 more files" in many
    assert "mlipdb ingest omat24 PATH" in many


def test_an_ingested_source_is_shown_with_counts_files_and_findings(run, tmp_path):
    (tmp_path / "runs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "runs" / f"{name}.xyz").write_text(XYZ.format(len(name) + ord(name)))
    result = run("ingest", "auto", tmp_path / "runs", "--workers", 0, "--method", "PBE/GPAW")
    assert result.exit_code == 0, result.output
    assert "read as extxyz: 2 files of its tree" in result.stderr
    text = run("source", "show", "runs").stdout
    for part in ("2 structures, complete", "PBE/GPAW: 2 labels", "a.xyz: 1 records, 0 quarantined, whole"):
        assert part in text
    assert "runs" in run("source", "list").stdout
    facts = json.loads(run("source", "show", "runs", "--json").stdout)
    assert facts["ingested"]["structures"] == 2


def test_an_unknown_source_is_an_error(run):
    assert isinstance(run("source", "show", "spicee").exception, NotFoundError)
