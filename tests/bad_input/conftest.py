"""What a person sees of a bad input: the command line as it is, its exit code, and what is left in the database."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import typer
import typer.core
from sqlalchemy import func, select

import mlipdb
from mlipdb.catalog import Base
from mlipdb.cli.app import main
from mlipdb.labels import Method
from mlipdb.records import NewLabel
from mlipdb.subsets import freeze
from mlipdb.testing.fuzzing import samples
from mlipdb.testing.samples import harmonic_label, sample_records

INGEST = Path(__file__).resolve().parent.parent / "ingest"


@pytest.fixture(autouse=True)
def contexts_are_what_typer_says_they_are(monkeypatch):
    """Typer declares typer.Context and hands over its base class, which the shape checker refuses; so make it true."""
    for command in (typer.core.TyperCommand, typer.core.TyperGroup):
        monkeypatch.setattr(command, "context_class", typer.Context)


@pytest.fixture(scope="session")
def sample_files(tmp_path_factory):
    """A whole sample of each reader, by the reader's name."""
    found = {}
    for sample in samples(INGEST, tmp_path_factory.mktemp("samples")):
        found.setdefault(sample.name, sample)
    return found


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "empty"
    mlipdb.create(path, catalog="catalog.sqlite").close()  # a template: a copy of the folder is a copy of the whole
    return path


@pytest.fixture(scope="session")
def filled_database(tmp_path_factory):
    """Six rock salts with DFT labels, a teacher's labels of three, the subset `some`."""
    db = mlipdb.create(tmp_path_factory.mktemp("template") / "filled", catalog="catalog.sqlite")
    source = db.open_source("sample", reader="none", uri="sample.json", licence="CC0-1.0")
    ids = db.append(sample_records(6), source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE")))
    db.close_source(source, state="complete")
    taught = [NewLabel(structure_id=i, part=0, label=harmonic_label(db.structure(i), seed=i)) for i in ids[:3]]
    db.append_labels(taught, method_id=db.method_id(Method(kind="teacher", name="toy", weights_sha256="b" * 64)))
    freeze(db, "some", filter="all")
    db.close()
    return db.path


@pytest.fixture
def empty(empty_database, tmp_path):
    """A database without anything in it."""
    return Path(shutil.copytree(empty_database, tmp_path / "db"))


@pytest.fixture
def filled(filled_database, tmp_path):
    """A database of six structures."""
    return Path(shutil.copytree(filled_database, tmp_path / "db"))


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `mlipdb …` as the entry point does; (exit code, stdout, stderr)."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["mlipdb", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err + shown.out, shown.err
        return code or 0, shown.out, shown.err

    return call


@pytest.fixture
def refused(command):
    """Runs a command that must fail: code 1 is one `error:` line with every part, 2 is wrong usage."""

    def call(*words, parts, code=1, lines=1):
        ended, shown, talk = command(*words)
        assert ended == code, (ended, shown, talk)
        if code == 1:
            errors = [line for line in talk.splitlines() if line.startswith("error: ")]
            assert len(errors) == 1, talk
            told = talk[talk.index("error: ") :]
            assert len(told.splitlines()) <= lines, talk
        for part in parts:
            assert part in " ".join(talk.replace("│", " ").split()), f"{part!r} is not in: {talk}"
        return shown

    return call


@pytest.fixture
def rows():
    """How many rows each table of a database has, with its shards: what must not change."""

    def count(path):
        db = mlipdb.open(path)
        with db.session() as session:
            tables = {
                name: session.scalar(select(func.count()).select_from(table))
                for name, table in Base.metadata.tables.items()
            }
        shards = sorted(file.name for file in (path / "shards").glob("*")) if (path / "shards").exists() else []
        assert db.verify(deep=True).ok
        db.close()
        return json.dumps([tables, shards])

    return count
