import io
from dataclasses import replace

import numpy as np
import orjson
import pytest
import typer
import typer.core
from typer.testing import CliRunner

from mlipdb.cli.app import app
from mlipdb.errors import ConfigError, TrainError
from mlipdb.records import NewStructure
from mlipdb.subsets.subset import freeze, freeze_chosen, load
from mlipdb.trainers.arrays import named_arrays, with_arrays
from mlipdb.trainers.checkpoint import load_model, save_model
from mlipdb.trainers.evaluate import evaluate
from mlipdb.trainers.finetune.finetune import FinetuneWish, finetune
from mlipdb.trainers.finetune.replay_set import ReplayChoice
from mlipdb.trainers.finetune.strategy import strategy_recipe
from mlipdb.trainers.forgetting import Extent, compare, forgetting, table, write_page
from mlipdb.trainers.forgetting.errors import label_errors
from mlipdb.trainers.forgetting.probes import _made_of
from mlipdb.trainers.progress import PlainReporter
from mlipdb.trainers.runs import find_run, run_names

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_programs")]

KNOWN = 'source="toy"'
SMALL = Extent(sample=12, cells=1, steps=5, elements=(1, 8))


@pytest.fixture(scope="module")
def foundation(trained, tmp_path_factory):
    """The trained model with louder weights and 2 eV more an atom: another convention, and another model."""
    model = load_model(trained[1].best)
    other = model.from_config({**model.to_config(), "e0": [value + 2.0 for value in model.e0.tolist()]})
    arrays = {name: 1.5 * array for name, array in named_arrays(model).items()}
    path = tmp_path_factory.mktemp("foundation") / "model"
    save_model(path, with_arrays(other, arrays, where="here"), name="nequix")
    return path


@pytest.fixture(scope="module")
def compared(trained, foundation):
    return forgetting(trained[0], "whole", subset="toy", foundation_subset=KNOWN, against=str(foundation), extent=SMALL)


def test_errors_are_those_of_an_evaluation(trained):
    db, whole, _ = trained
    [row, _] = evaluate(db, "whole", subset="toy", splits=("test",)).rows
    pairs = list(db.read(load(db, "toy").splits["test"]))
    model = load_model(whole.best)
    e0 = dict(zip(model.atomic_numbers, model.e0.tolist(), strict=True))
    found = label_errors(model, pairs, energy="energy_uncorrected", e0=e0)
    for name in ("energy_mae", "forces_mae", "stress_mae", "structures"):
        assert getattr(found, name) == pytest.approx(row[name], rel=1e-4)
    assert found.energy_aligned_mae == found.energy_mae


def test_energies_of_another_convention_are_compared_with_its_e0s(trained):
    """Three eV less an atom in the labels' E0s, and nothing else: what a fine-tuning on other labels does."""
    db, whole, _ = trained
    model = load_model(whole.best)
    e0 = dict(zip(model.atomic_numbers, model.e0.tolist(), strict=True))
    shifted = model.with_reference(e0={number: value - 3.0 for number, value in e0.items()})
    pairs = list(db.read(load(db, "toy").splits["train"]))
    first, other = (label_errors(each, pairs, energy="energy_uncorrected", e0=e0) for each in (model, shifted))
    assert other.energy_mae == pytest.approx(3000, rel=0.2)
    assert other.energy_aligned_mae == pytest.approx(first.energy_aligned_mae)
    assert label_errors(model, pairs, energy="energy_uncorrected", e0={1: 0.0}).energy_aligned_mae is None


def test_offsets_are_fitted_only_where_structures_are_many_enough_to_show_an_error(trained):
    db, whole, _ = trained
    model = load_model(whole.best)
    pairs = list(db.read(np.arange(1, 25)))
    few, many = (label_errors(model, some, energy="energy_uncorrected", e0={}) for some in (pairs[:5], pairs))
    assert few.energy_fitted_mae is None
    assert 0 < many.energy_fitted_mae <= many.energy_mae


def test_both_models_are_asked_the_same_and_the_offset_of_the_convention_is_told_apart(compared):
    before, after = compared.numbers()["before"], compared.numbers()["after"]
    assert before["target"]["energy_mae"] > 1500 > after["target"]["energy_mae"]
    assert before["target"]["energy_aligned_mae"] < 1000
    assert after["target"]["energy_aligned_mae"] == after["target"]["energy_mae"]
    assert before["foundation"]["energy_aligned_mae"] == before["foundation"]["energy_mae"]
    assert before["foundation"]["structures"] == after["foundation"]["structures"]
    assert before["dimers"]["curves"] == after["dimers"]["curves"] == 3
    assert before["cells"]["curves"] == 1
    assert before["drift"]["steps"] == after["drift"]["steps"] == 5


def test_a_model_beside_itself_has_forgotten_nothing(trained):
    db, whole, _ = trained
    found = forgetting(
        db, "whole", subset="toy", foundation_subset=KNOWN, against=str(whole.best), extent=SMALL
    ).numbers()
    assert found["before"] == found["after"]


def test_what_the_run_has_learnt_is_not_asked_for(trained, foundation):
    """All structures that the foundation could be asked for but one were in the train part of the run."""
    db = trained[0]
    toy = load(db, "toy")
    freeze_chosen(db, "mostly-learnt", np.append(toy.splits["train"], toy.splits["test"][0]), about="a test")
    found = forgetting(
        db, "whole", subset="toy", foundation_subset="mostly-learnt", against=str(foundation), extent=SMALL
    )
    assert found.after.foundation.structures == 1


def test_the_same_question_has_the_same_answer(trained, foundation, compared):
    again = forgetting(
        trained[0], "whole", subset="toy", foundation_subset=KNOWN, against=str(foundation), extent=SMALL
    )
    assert again.describe() == compared.describe()


def test_every_element_of_the_train_part_makes_dimers_and_one_of_no_model_is_an_error(trained, foundation):
    db, sets = trained[0], {"subset": "toy", "foundation_subset": KNOWN, "against": str(foundation)}
    found = forgetting(db, "whole", **sets, extent=Extent(sample=2, cells=0, steps=0))
    assert [curve.name for curve in found.after.dimers] == ["H-H", "H-C", "H-O", "C-C", "C-O", "O-O"]
    assert found.after.drift is None
    assert found.after.cells == ()
    with pytest.raises(ConfigError, match="Xe: not an element of both models"):
        forgetting(db, "whole", **sets, extent=Extent(elements=(1, 54)))


def test_a_run_that_came_from_nowhere_must_be_told_its_foundation(trained, foundation):
    db = trained[0]
    with pytest.raises(ConfigError, match="--against"):
        forgetting(db, "whole", subset="toy", foundation_subset=KNOWN)
    with pytest.raises(ConfigError, match="--foundation-subset"):
        forgetting(db, "whole", subset="toy", against=str(foundation))


@pytest.fixture(scope="module")
def replaying(trained):
    """A fine-tuning of the run ``whole`` that replays twelve structures."""
    wish = FinetuneWish(foundation="whole", subset="toy", replay=ReplayChoice(source=KNOWN, size=12), name="replaying")
    recipe = strategy_recipe("replay", settings=["epochs=1", "batch.graphs=4", "data.threads=1"])
    finetune(trained[0], wish, recipe=recipe, reporter=PlainReporter(io.StringIO(), every=0.0))
    return load(trained[0], find_run(trained[0], "replaying").config["recipe"]["finetune"]["replay"])


def test_a_replaying_run_knows_its_foundation_and_what_it_replayed(trained, replaying):
    db = trained[0]
    found = forgetting(db, "replaying", subset="toy", extent=SMALL)
    assert found.foundation_subset == replaying.name
    assert found.against == "whole"
    fresh = set(replaying.splits["validation"].tolist()) - set(load(db, "toy").splits["train"].tolist())
    asked = fresh or set(replaying.splits["train"].tolist()) - set(load(db, "toy").splits["train"].tolist())
    assert found.kept.structures == found.after.foundation.structures <= max(len(asked), 12)
    assert found.numbers()["kept"]["forces_mae"] > 0
    assert "foundation, its own readout: force MAE" in table(found)


def test_what_was_replayed_is_asked_for_by_its_own_energy_and_method(trained, replaying, monkeypatch):
    # The foundation learnt another energy than its pseudo-labels have, which are uncorrected whatever it learnt.
    db, asked = trained[0], []
    run = find_run(db, "replaying")
    tuned = {**run.config["recipe"]["finetune"], "replay_energy": "energy_zero", "replay_method": "pair-potential"}
    config = {**run.config, "recipe": {**run.config["recipe"], "finetune": tuned}}
    monkeypatch.setattr(compare, "find_run", lambda db, name: replace(run, config=config))

    def probes(db, wanted, **settings):
        asked.append((wanted.foundation_energy, wanted.foundation_method))
        raise TrainError("enough")

    monkeypatch.setattr(compare, "find_probes", probes)
    for known in (None, replaying.name, KNOWN):
        with pytest.raises(TrainError, match="enough"):
            forgetting(db, "replaying", subset="toy", foundation_subset=known, extent=SMALL)
    assert asked == [("energy_zero", "pair-potential")] * 2 + [("energy_uncorrected", "")]


def test_a_sample_is_of_structures_that_both_models_know(trained):
    db = trained[0]
    everything = load(db, "toy")
    ids = _made_of(db, everything, {1, 8})
    assert {z for each in db.structures(ids) for z in each.composition} == {1, 8}
    assert _made_of(db, everything, {1, 6, 8}).tolist() == everything.ids.tolist()
    with pytest.raises(TrainError, match="no structure of 'toy' is of elements that both models know"):
        _made_of(db, everything, {1})


def test_what_is_missing_is_said_before_anything_is_evaluated(trained):
    db = trained[0]
    runs = run_names(db)
    done = command(db, "whole", "--subset", "toy", "--forgetting", "--foundation-subset", KNOWN)
    assert "--against" in str(done.exception)
    assert run_names(db) == runs


def test_one_readout_of_a_run_is_asked_for_by_its_name(trained, replaying):
    db = trained[0]
    both = forgetting(db, "replaying", subset="toy", extent=SMALL)
    other = forgetting(db, "replaying@foundation", subset="toy", extent=SMALL)
    assert other.kept is None
    assert other.after.foundation == both.kept


def test_structures_without_a_label_are_not_silently_no_error(trained, foundation, tmp_path):
    db = trained[0]
    source = db.open_source("bare", reader="none", uri="made by a test")
    structure = db.structure(1)
    moved = replace(structure, positions=structure.positions + 0.01, id=None)
    db.append([NewStructure(structure=moved, label=None, external_id="b", material="b")], source_id=source)
    freeze(db, "unlabelled", filter='source="bare"')
    with pytest.raises(TrainError, match="none of 1 structures of 'unlabelled' has a label"):
        forgetting(db, "whole", subset="toy", foundation_subset="unlabelled", against=str(foundation), extent=SMALL)


def test_the_table_has_both_models_side_by_side(compared):
    lines = table(compared).splitlines()
    assert lines[0].split()[0] == "before:"
    assert any("dimers (3): walls" in line for line in lines)
    assert any("NVE, 5 fs" in line for line in lines)


def test_the_page_draws_every_curve_and_loads_nothing(compared, tmp_path):
    write_page(tmp_path / "page.html", compared)
    text = (tmp_path / "page.html").read_text()
    body = text[text.rindex("<body>") :]
    assert body.count("Plotly.newPlot") == 4
    assert "H-O" in body
    assert "src=" not in body


@pytest.fixture(autouse=True)
def contexts_are_what_typer_says_they_are(monkeypatch):
    """As in tests/cli: typer declares typer.Context and hands over its base class."""
    for command in (typer.core.TyperCommand, typer.core.TyperGroup):
        monkeypatch.setattr(command, "context_class", typer.Context)


def command(db, *words):
    return CliRunner().invoke(app, ["--db", str(db.path), "evaluate", *words])


def test_the_command_keeps_the_numbers_in_the_row_of_the_evaluation(trained, foundation):
    db = trained[0]
    settings = ["--subset", "toy", "--split", "test", "--sample", "4", "--elements", "H"]
    done = command(
        db, "whole", *settings, "--forgetting", "--foundation-subset", KNOWN, "--against", str(foundation), "--json"
    )
    assert done.exit_code == 0, done.output
    told = orjson.loads(done.stdout)
    kept = find_run(db, told["run"]).metrics
    assert kept["forgetting"]["after"] == told["forgetting"]["after"]
    assert [row["predicted_by"] for row in kept["rows"]] == ["whole", "E0 only"]
    assert len(told["forgetting"]["curves"]["dimers"]["before"]) == 1


def test_options_of_forgetting_without_it_are_wrong_usage(trained):
    done = command(trained[0], "whole", "--subset", "toy", "--against", "x")
    assert done.exit_code == 2
    assert "--forgetting" in done.output
