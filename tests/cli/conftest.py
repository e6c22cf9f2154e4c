import pytest
import typer
import typer.core
from typer.testing import CliRunner

import mlipdb
from mlipdb.cli.app import app
from mlipdb.labels import Method
from mlipdb.testing.samples import sample_records


@pytest.fixture(autouse=True)
def contexts_are_what_typer_says_they_are(monkeypatch):
    """Typer declares typer.Context and hands over its base class, which the shape checker refuses; so make it true."""
    for command in (typer.core.TyperCommand, typer.core.TyperGroup):
        monkeypatch.setattr(command, "context_class", typer.Context)


@pytest.fixture
def rock_salts(tmp_path):
    """Makes a database of so many rock salts with PBE labels, three frames a material; every fifth has yttrium."""
    made = []

    def make(count):
        db = mlipdb.create(tmp_path / "db")
        made.append(db)
        source = db.open_source("sample", reader="none", uri="nowhere")
        db.append(sample_records(count), source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE")))
        return db

    yield make
    for db in made:
        db.close()


@pytest.fixture
def command(database):
    """Runs a command on the database of the file's own fixture of that name."""
    return lambda *words: CliRunner().invoke(app, ["--db", str(database.path), *map(str, words)])


@pytest.fixture(scope="session")
def run():
    """Runs a command on a database, and sees that it ends with a code; for fixtures that many tests share, too."""

    def ended(db, *words, code=0):
        result = CliRunner().invoke(app, ["--db", str(db.path), *words])
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return ended


@pytest.fixture(scope="module")
def kept():
    """What a command gave once, for all tests of a file."""
    return {}
