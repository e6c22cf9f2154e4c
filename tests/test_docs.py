"""What the documents say is so."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer.testing

from mlipdb.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "bench" / "README.md"]


def shell_commands(text):
    """Every line of a document that calls mlipdb, as words."""
    for line in re.findall(r"^\s*(?:\$ )?(mlipdb [^\n]*)$", text, flags=re.MULTILINE):
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_exists_with_its_options(document):
    for words in shell_commands(document.read_text()):
        command, rest = typer.main.get_command(app), words[1:]
        while rest and hasattr(command, "commands"):
            if rest[0] == "--db":
                rest = rest[2:]
                continue
            assert rest[0] in command.commands, f"{document.name}: {' '.join(words)}"
            command, rest = command.commands[rest[0]], rest[1:]
        known = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts}
        for word in rest:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{document.name}: {' '.join(words)}"


def test_the_command_reference_is_what_the_command_line_says():
    spec = importlib.util.spec_from_file_location("document_commands", ROOT / "scripts" / "document_commands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.document() == module.TARGET.read_text(), "run `python scripts/document_commands.py`"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_ci_runs_the_test_command_of_the_readme():
    [command] = re.findall(r"pip install -e '\.\[test\]' && pytest", README)
    assert "pip install -e '.[test]' -q && pytest" in (ROOT / ".ci" / "run").read_text()
    assert command


def test_the_version_in_the_changelog_is_that_of_the_package():
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
