import weakref

import numpy as np
import pytest

from mlipdb.errors import ConfigError, NotFoundError
from mlipdb.subsets.statistics import fit_e0
from mlipdb.subsets.subset import load
from mlipdb.trainers import part_errors
from mlipdb.trainers.arrays import named_arrays, with_arrays
from mlipdb.trainers.batching import records
from mlipdb.trainers.batching.records import RecordSource
from mlipdb.trainers.checkpoint import load_model
from mlipdb.trainers.evaluate import evaluate, table
from mlipdb.trainers.models.nqx import save_nqx
from mlipdb.trainers.runs import find_run


@pytest.fixture(scope="module")
def evaluated(trained):
    return evaluate(trained[0], "whole", subset="toy")


def part(db, name):
    ids = load(db, "toy").splits[name].tolist()
    return list(db.read(ids))


def test_the_baseline_is_e0_of_the_train_part_with_zero_forces_and_stress(trained, evaluated):
    db = trained[0]
    train, test = part(db, "train"), part(db, "test")
    fit = fit_e0([s.composition for s, _ in train], np.array([label.energy_uncorrected for _, label in train]))
    predicted = fit.energies([s.composition for s, _ in test])
    errors = [(p - label.energy_uncorrected) / len(s) for p, (s, label) in zip(predicted, test, strict=True)]
    row = next(row for row in evaluated.rows if (row["split"], row["predicted_by"]) == ("test", "E0 only"))
    assert row["structures"] == len(test)
    assert row["energy_mae"] == pytest.approx(1e3 * np.mean(np.abs(errors)))
    assert row["energy_rmse"] == pytest.approx(1e3 * np.sqrt(np.mean(np.square(errors))))
    forces = np.concatenate([label.forces.ravel() for _, label in test])
    stress = np.array([label.stress for _, label in test])
    assert row["forces_mae"] == pytest.approx(1e3 * np.mean(np.abs(forces)))
    assert row["stress_rmse"] == pytest.approx(1e3 * np.sqrt(np.mean(stress**2)))


def test_a_run_is_evaluated_with_its_best_checkpoint_as_validation_saw_it(trained, evaluated):
    _, whole, _ = trained
    best = whole.metrics["best"]["epoch"]
    seen = whole.metrics["epochs"][best - 1]["validation"]
    row = next(row for row in evaluated.rows if (row["split"], row["predicted_by"]) == ("validation", "whole"))
    for name in ("energy_mae", "forces_rmse", "stress_mae"):
        assert row[name] == pytest.approx(seen[name], rel=1e-3)
    assert evaluated.energy == "energy_uncorrected"


def test_all_parts_are_shown_and_the_table_is_kept_as_a_run(trained, evaluated):
    assert [row["split"] for row in evaluated.rows] == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    facts = find_run(trained[0], evaluated.name)
    assert (facts.kind, facts.state) == ("evaluate", "finished")
    assert facts.metrics["rows"] == [dict(row) for row in evaluated.rows]
    lines = table(evaluated).splitlines()
    assert len(lines) == 7
    assert "energy mae meV/atom" in lines[0]


def test_a_model_from_elsewhere_is_compared_as_it_is_and_aligned(trained, tmp_path):
    db, whole, _ = trained
    model = load_model(whole.best)
    shifted = model.from_config({**model.to_config(), "e0": [value + 2.0 for value in model.e0.tolist()]})
    save_nqx(tmp_path / "other.nqx", with_arrays(shifted, named_arrays(model), where="here"))
    found = evaluate(db, str(tmp_path / "other.nqx"), subset="toy", splits=("train",))
    rows = {row["predicted_by"]: row for row in found.rows}
    assert list(rows) == ["other.nqx", "other.nqx, aligned", "E0 only"]
    assert rows["other.nqx"]["energy_mae"] > 1500
    assert rows["other.nqx, aligned"]["energy_mae"] < 300
    assert rows["other.nqx"]["forces_mae"] == rows["other.nqx, aligned"]["forces_mae"]


def test_the_baseline_lists_no_neighbours(trained, monkeypatch):
    db = trained[0]
    monkeypatch.setattr(records, "neighbours", None)
    pairs = part(db, "train")
    fit = fit_e0([s.composition for s, _ in pairs], np.array([label.energy_uncorrected for _, label in pairs]))
    ids = load(db, "toy").splits["test"]
    found = part_errors.baseline_errors(fit, RecordSource(db, cutoff=3.0), ids, energy="energy_uncorrected")
    assert (found.structures, len(found.energies)) == (len(ids), len(ids))


def test_records_that_the_source_does_not_keep_are_not_held(trained, monkeypatch):
    db, whole, _ = trained
    alive, most, make = weakref.WeakSet(), [], RecordSource._record

    def noted(self, *parts):
        alive.add(record := make(self, *parts))
        most.append(len(alive))
        return record

    monkeypatch.setattr(RecordSource, "_record", noted)
    monkeypatch.setattr(records, "CHUNK", 1)
    monkeypatch.setattr(part_errors, "choose_shapes", None)  # as far as sizes are known
    source, ids = RecordSource(db, cutoff=3.0, budget=0), load(db, "toy").splits["train"]
    with pytest.raises(TypeError):
        part_errors.model_errors(load_model(whole.best), source, ids, energy="energy_uncorrected")
    assert len(most) == len(ids) > 10
    assert max(most) <= 5


def test_a_checkpoint_folder_of_a_run_counts_as_ours(trained):
    found = evaluate(trained[0], str(trained[1].best), subset="toy", splits=("test",))
    assert len(found.rows) == 2


@pytest.mark.parametrize(("target", "split", "message"), [("whle", "test", "whole"), ("whole", "tset", "'test'")])
def test_what_is_not_there_is_an_error_that_names_what_is(trained, target, split, message):
    with pytest.raises((NotFoundError, ConfigError), match=message):
        evaluate(trained[0], target, subset="toy", splits=(split,))
