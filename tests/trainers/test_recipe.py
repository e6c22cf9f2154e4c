import re

import pytest

from mlipdb.errors import ConfigError
from mlipdb.trainers.cookbook import load_recipe, recipe_names, save_recipe
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.settings import flattened, to_mapping
from mlipdb.trainers.student import student_cutoff


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_loads_and_its_model_exists(name):
    assert student_cutoff(load_recipe(name).model) > 0


def test_the_published_recipe_is_the_published_one():
    recipe = load_recipe("nequix-mp")
    assert (recipe.optimizer.name, recipe.optimizer.learning_rate, recipe.optimizer.clip_norm) == ("muon", 0.01, 100.0)
    assert recipe.loss == {"energy_mae": 20.0, "forces_l2": 20.0, "stress_mae": 5.0}
    assert (recipe.epochs, recipe.batch.graphs, recipe.optimizer.ema_decay) == (100, 256, 0.999)
    assert recipe.model["hidden_irreps"] == "128x0e + 64x1o + 32x2e + 32x3o"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.learning_rat=1", "Did you mean 'learning_rate'"),
        ("optimiser.name=muon", "Did you mean 'optimizer'"),
        ("optimizer.name=muun", "Did you mean 'muon'"),
        ("loss.force_l2=3", "Did you mean 'forces_l2'"),
        ("data.energy=energy_corected", "energy_corrected"),
        ("epochs=1.5", "must be int"),
        ("epochs=true", "must be int"),
        ("epochs=0", "above 0"),
        ("batch=3", "table of settings"),
        ("epochs", "not key=value"),
        ("epochs.more=1", "not a table"),
        ("loss.energy_mae=high", "must be float"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_to_do(setting, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_recipe("nano", settings=[setting])


def test_an_option_that_the_model_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="cutoff"):
        student_cutoff({"name": "nequix", "cutof": 3.0})


def test_settings_replace_what_the_recipe_says():
    recipe = load_recipe(
        "nano",
        settings=["optimizer.learning_rate=1", "model.cutoff=4.5", "data.energy=energy_corrected", "loss.stress_mae=0"],
    )
    assert recipe.optimizer.learning_rate == 1.0
    assert recipe.model["cutoff"] == 4.5
    assert recipe.data.energy == "energy_corrected"
    assert recipe.loss["stress_mae"] == 0.0


@pytest.mark.parametrize("name", recipe_names())
def test_a_saved_recipe_has_every_setting_and_reads_back_the_same(name, tmp_path):
    recipe = load_recipe(name, settings=['data.method="a \\"quoted\\" one"'])
    save_recipe(recipe, tmp_path / "recipe.toml")
    assert load_recipe(str(tmp_path / "recipe.toml")) == recipe
    for key, _ in flattened(to_mapping(Recipe())):
        assert key.rpartition(".")[2] in (tmp_path / "recipe.toml").read_text()


@pytest.mark.parametrize(("name", "message"), [("nanno", "Did you mean 'nano'"), ("absent.toml", "does not exist")])
def test_an_unknown_recipe_names_those_that_ship(name, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(name)


def test_a_file_that_is_no_toml_says_where(tmp_path):
    (tmp_path / "broken.toml").write_text("epochs = \n")
    with pytest.raises(ConfigError, match="line 1"):
        load_recipe(str(tmp_path / "broken.toml"))


def test_the_documentation_lists_every_setting_with_its_default(root):
    table = re.findall(r"^\| `([a-z0-9_.]+)` \| `(.*?)` \|", (root / "docs" / "training.md").read_text(), re.MULTILINE)
    code = {
        key: str(value).lower() if isinstance(value, bool) else repr(value)
        for key, value in flattened(to_mapping(Recipe()))
    }
    assert {key: value.replace('"', "'") for key, value in table} == code
