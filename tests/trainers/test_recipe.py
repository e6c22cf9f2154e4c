import re
from dataclasses import replace

import pytest

from mlipdb.errors import ConfigError
from mlipdb.trainers.cookbook import load_recipe, recipe_names, save_recipe, variant_names
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.settings import flattened, to_mapping
from mlipdb.trainers.student import student_edges

VARIANTS = [variant for name in recipe_names() for variant in variant_names(name)]


SHIPPED = recipe_names() + [name for name in VARIANTS if name.startswith("joint")]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_loads_and_its_model_exists(name):
    assert student_edges(load_recipe(name).model)[0] > 0


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
        ("loss.energy_mae=-1", "'loss.energy_mae' is -1.0; it must be 0 or more"),
        ("optimizer.amsgrad=true", "set optimizer.name=adamw"),
        ("optimizer.plateau_factor=1.0", "must be below 1"),
        ("optimizer.epsilon=0", "above 0"),
        ("loss_schedule.energy_mea=[[0, 1.0]]", "Did you mean 'energy_mae'"),
        ("loss_schedule.energy_mae=[[5, 1.0], [2, 1.0]]", "epochs ascending"),
        ("loss_schedule.energy_mae=[[5]]", "points [epoch, factor]"),
        ("loss_schedule.energy_mae=3", "must be"),
        ("loss_settings.forces_l3.delta=0.1", "Did you mean 'forces_l2'"),
        ("loss_settings.forces_huber.delta=0.1", "a loss without a weight"),
        ("loss_settings.forces_l2.delta=0.1", "loss 'forces_l2' has no setting 'delta'; it has none"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_to_do(setting, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_recipe("nano", settings=[setting])


@pytest.mark.parametrize(("key", "message"), [("detla", "Did you mean 'delta'"), ("delta", "must be above 0; got 0.0")])
def test_a_setting_of_a_loss_is_one_that_it_has_and_can_use(key, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("nano", settings=["loss.forces_huber=1", f"loss_settings.forces_huber.{key}=0"])


def test_an_option_that_the_model_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="cutoff"):
        student_edges({"name": "nequix", "cutof": 3.0})


def test_settings_replace_what_the_recipe_says():
    recipe = load_recipe(
        "nano",
        settings=["optimizer.learning_rate=1", "model.cutoff=4.5", "data.energy=energy_corrected", "loss.stress_mae=0"],
    )
    assert recipe.optimizer.learning_rate == 1.0
    assert recipe.model["cutoff"] == 4.5
    assert recipe.data.energy == "energy_corrected"
    assert recipe.loss["stress_mae"] == 0.0


# Tables 5 to 11 of the paper on joint distillation, by hand: epochs, graphs, Hessian rows, cutoff, and the weights of
# atomic energies and Hessian rows.
SPICE, MPTRJ = (20.0, 400.0), (10.0, 200.0)
PAPER = {
    "gemnet-dt/monomers": (600, 4, 4, 5.0, *SPICE),
    "painn/monomers": (1400, 8, 4, 12.0, *SPICE),
    "gemnet-t/monomers": (500, 4, 4, 5.0, *SPICE),
    "gemnet-dt/amino-acids": (2000, 4, 1, 5.0, *SPICE),
    "painn/amino-acids": (1000, 4, 1, 12.0, *SPICE),
    "gemnet-t/amino-acids": (2500, 4, 1, 5.0, *SPICE),
    "gemnet-dt/iodine": (600, 4, 4, 5.0, *SPICE),
    "painn/iodine": (1500, 8, 4, 12.0, *SPICE),
    "gemnet-t/iodine": (600, 4, 4, 5.0, *SPICE),
    "gemnet-dt/pm-3m": (500, 16, 4, 6.0, *MPTRJ),
    "painn/pm-3m": (500, 16, 4, 14.0, *MPTRJ),
    "gemnet-t/pm-3m": (500, 16, 4, 6.0, *MPTRJ),
    "gemnet-dt/yttrium": (500, 16, 1, 6.0, *MPTRJ),
    "painn/yttrium": (1000, 16, 4, 16.0, *MPTRJ),
    "gemnet-t/yttrium": (500, 16, 1, 6.0, *MPTRJ),
    "gemnet-dt/gap": (350, 32, 1, 6.0, *MPTRJ),
    "painn/gap": (1000, 32, 4, 6.0, *MPTRJ),
}


def test_the_paper_has_just_these_students_and_subsets():
    subsets = {name.partition("/")[2] for name in variant_names("joint") if name.count("/") == 2}
    assert {name for name in subsets if not name.startswith("nequix/")} == PAPER.keys()


@pytest.mark.parametrize(("name", "expected"), PAPER.items())
def test_joint_distillation_is_that_of_the_paper(name, expected):
    recipe = load_recipe(f"joint/{name}")
    optimizer, loss = recipe.optimizer, recipe.distillation.loss
    found = (recipe.epochs, recipe.batch.graphs, recipe.distillation.rows_per_structure, recipe.model["cutoff"])
    assert (*found, loss["atomic_energies_mae"], loss["hessian_rows"]) == expected
    assert recipe.loss == {"energy_mae": 5.0, "forces_l2": 100.0}
    assert (recipe.model["name"], recipe.model["max_neighbours"]) == (name.partition("/")[0], 50)
    waits = (10, 5e-6) if name.startswith("painn") else (5, 1e-6)
    assert (optimizer.plateau_patience, optimizer.final_learning_rate) == waits
    assert (optimizer.name, optimizer.amsgrad, optimizer.schedule) == ("adamw", True, "plateau")
    assert (optimizer.learning_rate, optimizer.epsilon, optimizer.weight_decay) == (1e-3, 1e-7, 2e-6)
    assert (optimizer.clip_norm, optimizer.ema_decay, optimizer.plateau_factor) == (10.0, 0.999, 0.8)


def test_the_base_lines_of_joint_differ_by_the_weights_alone():
    joint, hessian, plain = (load_recipe(f"{kind}/painn/yttrium") for kind in ("joint", "hessian", "plain"))
    assert hessian.distillation.loss == {"atomic_energies_mae": 0.0, "hessian_rows": 200.0}
    assert plain.distillation.loss == {"atomic_energies_mae": 0.0, "hessian_rows": 0.0}
    for other in (hessian, plain):
        assert replace(other, distillation=joint.distillation) == joint


def test_a_variant_that_the_paper_does_not_have_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"no variant 'joint/gemnet-t/gap'.*Did you mean 'joint/gemnet-dt/gap'"):
        load_recipe("joint/gemnet-t/gap")
    with pytest.raises(ConfigError, match="Variants: none"):
        load_recipe("nano/painn")


def test_a_file_extends_a_shipped_recipe_or_another_file(tmp_path):
    (tmp_path / "one.toml").write_text('extends = "joint/painn/yttrium"\nepochs = 3\n[loss]\nstress_mae = 1.0\n')
    (tmp_path / "two.toml").write_text('extends = "one.toml"\n[model]\nname = "nequix"\nlmax = 1\n')
    one, two = (load_recipe(str(tmp_path / f"{name}.toml")) for name in ("one", "two"))
    assert (one.epochs, one.model["cutoff"], one.loss["forces_l2"], one.loss["stress_mae"]) == (3, 16.0, 100.0, 1.0)
    assert (two.epochs, two.model) == (3, {"name": "nequix", "lmax": 1})  # a painn's options are not a nequix's
    (tmp_path / "round.toml").write_text('extends = "round.toml"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        load_recipe(str(tmp_path / "round.toml"))


def test_another_model_leaves_the_options_of_the_recipes_model_behind():
    recipe = load_recipe("joint/painn/yttrium", settings=["model.cutoff=4.0", "model.name=nequix"])
    assert recipe.model == {"name": "nequix", "cutoff": 4.0}


@pytest.mark.parametrize("name", recipe_names())
def test_a_saved_recipe_has_every_setting_and_reads_back_the_same(name, tmp_path):
    recipe = load_recipe(name, settings=['data.method="a \\"quoted\\" one"'])
    save_recipe(recipe, tmp_path / "recipe.toml")
    assert load_recipe(str(tmp_path / "recipe.toml")) == recipe
    for key, _ in flattened(to_mapping(recipe)):
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
