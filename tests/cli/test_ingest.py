import json

import pytest
import typer
from typer.testing import CliRunner

import mlipdb
from mlipdb.cli.ingest import DownloadLine, ProgressLine, ingest, show_report
from mlipdb.errors import ConfigError, DownloadError, IngestError
from mlipdb.ingest import IngestReport, list_sources
from mlipdb.ingest.checks import Finding

XYZ = "1\nProperties=species:S:1:pos:R:3 energy={0} REF_energy={1}\nH 0 0 0\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `mlipdb ingest …` on a database of this test."""
    app = typer.Typer()
    app.command()(ingest)
    monkeypatch.setenv("MLIPDB_DB", str(tmp_path / "db"))
    monkeypatch.setenv("MLIPDB_CACHE", str(tmp_path / "cache"))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


@pytest.fixture
def sample(root):
    return root / "mlipdb" / "data" / "gpaw-pbe-sample.json.gz"


def test_the_first_ingest_makes_the_database_and_says_what_it_did(run, sample, tmp_path):
    result = run("mptrj", sample, "--workers", 0, "--name", "gpaw", "--method", "PBE/GPAW")
    assert result.exit_code == 0, result.output
    assert "gpaw: 262 records read" in result.stdout
    assert "taken        262" in result.stdout
    db = mlipdb.open(tmp_path / "db")
    assert [method.code for method in db.methods().values()] == ["GPAW"]
    assert db.entry(1).space_group_symbol is not None


def test_json_has_the_counts_and_stdout_holds_nothing_else(run, sample):
    run("mptrj", sample, "--no-symmetry")
    values = json.loads(run("mptrj", sample, "--no-symmetry", "--json").stdout)
    wanted = {"taken": 0, "duplicates": 262, "quarantined": 0, "already_taken": 262, "structures": 262}
    assert {key: values[key] for key in wanted} == wanted
    assert (values["source"], values["state"]) == ("mptrj", "complete")


def test_declared_keys_and_units_reach_the_reader(run, tmp_path):
    (tmp_path / "a.xyz").write_text(XYZ.format(-1, -2))
    result = run("extxyz", tmp_path / "a.xyz", "--key", "energy=REF_energy", "--unit", "energy=hartree")
    assert result.exit_code == 0, result.output
    (label,) = mlipdb.open(tmp_path / "db").labels(1)
    assert label.energy_uncorrected == -2 * 27.211386245988


def test_an_ambiguous_file_is_an_error_that_names_the_flag(run, tmp_path):
    (tmp_path / "a.xyz").write_text(XYZ.format(-1, -2))
    result = run("extxyz", tmp_path / "a.xyz")
    assert isinstance(result.exception, IngestError)
    assert "--key energy=REF_energy" in str(result.exception)


def test_quarantined_records_are_listed(run, tmp_path):
    (tmp_path / "a.xyz").write_text(XYZ.format(-1, -1) + XYZ.format(-1, -1).replace("H 0 0 0", "Qq 0 0 0") * 7)
    result = run("extxyz", tmp_path / "a.xyz")
    assert "quarantined  7" in result.stdout
    assert "a-1 (a.xyz: frame 1): 'Qq' in row 0 is not an element" in result.stdout
    assert result.stdout.count("'Qq'") == 5
    assert "--json lists them" in result.stdout


@pytest.mark.parametrize("words", [["extxyz"], ["mptrj", "--key", "energy"], ["mptrj", "--unit", "=eV"]])
def test_a_usage_error_exits_with_two(run, words):
    assert run(*words).exit_code == 2


def test_offline_without_the_published_file_says_where_to_put_it(run, tmp_path):
    result = run("mptrj", "--offline")
    assert isinstance(result.exception, DownloadError)
    assert str(tmp_path / "cache" / "MPtrj_2022.9_full.json") in str(result.exception)
    assert "50ead5f27f9a4f6beb7564c4188f1e9f" in str(result.exception)
    assert not (tmp_path / "db").exists()


def test_progress_is_shown_on_a_terminal_only(capsys, monkeypatch):
    report = IngestReport(source="x", taken=1200)
    ProgressLine(every=0.0)(report)
    DownloadLine("f", every=0.0)(10, 20)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    ProgressLine(every=0.0)(report)
    DownloadLine("f", every=0.0)(10_000_000, 20_000_000)
    shown = capsys.readouterr().err
    assert "1200 frames" in shown
    assert "f: 10 of 20 MB" in shown


def test_strict_stores_nothing_and_lists_the_findings(run, tmp_path):
    head = "2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.5\n"
    rows = [f"{head}H 0 0 0 0 0 500\nH 0 0 {1 + n / 100} 0 0 -500\n" for n in range(30)]
    (tmp_path / "a.xyz").write_text("".join(rows))
    result = run("extxyz", tmp_path / "a.xyz", "--workers", 0, "--strict")
    assert isinstance(result.exception, IngestError)
    assert "large_forces" in str(result.exception)
    assert list_sources(mlipdb.open(tmp_path / "db"))[-1]["name"] != "a"
    result = run("extxyz", tmp_path / "a.xyz", "--workers", 0)
    assert result.exit_code == 0, result.output
    assert result.output.count("large_forces: ") == 1
    assert "warning: large_forces: " in result.stderr
    assert "as told before the first record was stored: " in result.stdout
    assert list_sources(mlipdb.open(tmp_path / "db"))[-1]["ingested"]["structures"] == 30


def test_the_report_has_of_the_findings_those_that_are_new_or_changed(capsys):
    one, two, three = (Finding(name, "warning", f"{name} of 10") for name in ("one", "two", "three"))
    more, fresh = Finding("two", "warning", "two of 500"), Finding("fresh", "note", "see")
    show_report(IngestReport(source="s", findings=[one, more, fresh]), told=[one, two, three], json=False)
    shown = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[4:]]
    assert shown == [
        ["findings", "as told before the first record was stored: one"],
        ["warning", "two: two of 500"],
        ["note", "fresh: see"],
        ["findings", "not among all records, though among the first: three"],
    ]


def test_a_folder_is_ingested_whole(run, tmp_path):
    for place in ("x", "y"):
        (tmp_path / "tree" / place).mkdir(parents=True)
        (tmp_path / "tree" / place / "a.xyz").write_text(XYZ.format(-1, -1).replace("0 0 0", f"0 0 {ord(place)}"))
    result = run("extxyz", tmp_path / "tree", "--workers", 0)
    assert "tree: 2 records read" in result.stdout


def test_a_source_that_is_not_fetched_tells_what_to_get(run):
    result = run("omat24")
    assert isinstance(result.exception, ConfigError)
    assert "omat/241220/omat/val/rattled-1000.tar.gz" in str(result.exception)
