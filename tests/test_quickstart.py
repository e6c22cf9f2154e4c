"""The first thing a newcomer runs works, and so does the Python that the README shows."""

import io
import re
from pathlib import Path

import pytest

import mlipdb
from mlipdb.trainers.live import make_reporter
from mlipdb.trainers.quickstart import RUN, SUBSET, TEACHER, quickstart

pytestmark = pytest.mark.slow

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A quickstart with a short training, and what it printed."""
    path = tmp_path_factory.mktemp("quickstart") / "mlipdb-quickstart"
    lines: list[str] = []
    quickstart(path, say=lines.append, reporter=make_reporter(io.StringIO()), settings=("epochs=2",))
    return path, "\n".join(lines)


def test_quickstart_takes_labels_trains_and_evaluates(finished):
    path, printed = finished
    db = mlipdb.open(path)
    assert len(db.query("all")) == 262
    labels = db.labels(1)
    assert [label.method.kind for label in labels] == ["dft", "teacher"]
    assert labels[1].method.name == TEACHER
    assert len(labels[1].hessian_row_numbers) == 4
    assert db.verify(deep=True).ok
    assert f"mlipdb evaluate {RUN} --subset {SUBSET}" in printed
    assert "E0 only" in printed
    db.close()


def test_quickstart_again_repeats_nothing(finished):
    path, _ = finished
    lines: list[str] = []
    quickstart(path, say=lines.append, reporter=make_reporter(io.StringIO()), settings=("epochs=2",))
    printed = "\n".join(lines)
    assert "0 frames taken, 262 duplicates" in printed
    assert "0 structures labelled" in printed


def test_the_python_of_the_readme_runs(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished[0].parent)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "PBE/GPAW" in capsys.readouterr().out
