import json

import pytest
from typer.testing import CliRunner

from mlipdb.cli.app import app
from mlipdb.trainers.cookbook import load_recipe, recipe_names


def run(*words, code=0):
    result = CliRunner().invoke(app, ["recipe", *words])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_list_names_every_recipe_and_what_it_is_for():
    lines = run("list").stdout.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == recipe_names()
    assert any(line.startswith("nano") and "laptop" in line for line in lines)
    found = json.loads(run("list", "--json").stdout)["recipes"]
    assert list(found) == recipe_names()
    assert "joint/painn/pm-3m" in found["joint"]["variants"]
    assert "  joint/painn/pm-3m" in run("list", "--variants").stdout.splitlines()


@pytest.mark.parametrize("words", [("nano",), ("joint/painn/yttrium", "--set", "optimizer.learning_rate=0.002")])
def test_what_show_prints_is_the_recipe_again(tmp_path, words):
    (tmp_path / "again.toml").write_text(run("show", *words).stdout)
    expected = load_recipe(words[0], settings=words[2:])
    assert load_recipe(str(tmp_path / "again.toml")) == expected
    assert json.loads(run("show", *words, "--json").stdout)["epochs"] == expected.epochs


def test_an_unknown_recipe_and_an_unknown_key_are_refused_with_a_suggestion():
    assert "Did you mean 'joint'" in str(run("show", "jiont", code=1).exception)
    assert "Did you mean 'epochs'" in str(run("show", "nano", "--set", "epoch=3", code=1).exception)
