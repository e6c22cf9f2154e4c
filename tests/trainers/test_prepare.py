"""What is said of the data before a training."""

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select

import mlipdb
from mlipdb.catalog import SubsetMember
from mlipdb.database import Database
from mlipdb.errors import ConfigError, TrainError
from mlipdb.records import NewLabel
from mlipdb.structures import SYMBOLS
from mlipdb.subsets import Request, training_statistics
from mlipdb.subsets.subset import freeze, load
from mlipdb.testing.samples import sample_records
from mlipdb.testing.training import training_database
from mlipdb.trainers.batching import records
from mlipdb.trainers.prepare import prepare


@pytest.fixture
def salts(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source("salts", reader="none", uri="nowhere")
    method = db.method_id(mlipdb.Method(kind="dft", name="PBE"))
    db.append(sample_records(12, per_material=1), source_id=source, method_id=method)
    yield db
    db.close()


def elements(db, ids):
    return {SYMBOLS[number] for structure in db.structures(ids) for number in structure.composition}


@pytest.mark.parametrize("seed", range(3))
def test_elements_that_only_held_out_structures_have_are_named(salts, tiny, seed):
    frozen = freeze(salts, f"all-{seed}", filter="all", fractions=(50, 25, 25), seed=seed)
    unseen = elements(salts, frozen.ids) - elements(salts, frozen.splits["train"])
    said = []
    report = prepare(salts, frozen, recipe=tiny(), teacher_id=None, devices=1, say=said.append).report
    assert set(report["elements_not_in_train"]) == unseen
    warnings = [line for line in said if line.startswith("WARNING") and "no structure to train on" in line]
    assert len(warnings) == (1 if unseen else 0)
    assert all(symbol in warnings[0] for symbol in unseen)


def test_what_a_training_worked_out_is_kept_for_others(salts, tiny, monkeypatch):
    frozen = freeze(salts, "salts", filter="all")
    recipe = tiny()
    facts = prepare(salts, frozen, recipe=recipe, teacher_id=None, devices=1, say=print).facts
    monkeypatch.setattr(Database, "read", None)
    kept = training_statistics(salts, frozen, Request(cutoff=recipe.model["cutoff"]))
    assert [kept.e0.get(number, 0.0) for number in facts.atomic_numbers] == list(facts.e0)
    assert (kept.mean, kept.scale, kept.neighbours) == (facts.shift, facts.scale, facts.avg_n_neighbors)


def test_what_was_kept_before_is_what_a_training_starts_from(salts, tiny):
    frozen = freeze(salts, "salts", filter="all")
    recipe = tiny()
    kept = training_statistics(salts, frozen, Request(cutoff=recipe.model["cutoff"]))
    facts = prepare(salts, frozen, recipe=recipe, teacher_id=None, devices=1, say=print).facts
    assert list(facts.e0) == [kept.e0.get(number, 0.0) for number in facts.atomic_numbers]
    assert (facts.shift, facts.scale, facts.avg_n_neighbors) == (kept.mean, kept.scale, kept.neighbours)


def test_a_training_starts_from_given_isolated_atoms(salts, tiny, tmp_path):
    path = tmp_path / "e0.json"
    path.write_text("{" + ", ".join(f'"{symbol}": -2.5' for symbol in SYMBOLS[1:]) + "}")
    frozen = freeze(salts, "salts", filter="all")
    recipe = tiny(f"data.e0={path}")
    assert set(prepare(salts, frozen, recipe=recipe, teacher_id=None, devices=1, say=print).facts.e0) == {-2.5}


def test_labels_of_two_methods_are_not_learnt_together(salts, tiny):
    source = salts.open_source("others", reader="none", uri="nowhere")
    method = salts.method_id(mlipdb.Method(kind="dft", name="PBEsol"))
    salts.append(sample_records(12, start=12, per_material=1), source_id=source, method_id=method)
    frozen = freeze(salts, "both", filter="all")
    with pytest.raises(ConfigError, match=r"of 2 methods \(1: PBE, 2: PBEsol\).*--set data.method=NUMBER"):
        prepare(salts, frozen, recipe=tiny(), teacher_id=None, devices=1, say=print)


def test_labels_to_validate_with_are_of_the_method_that_is_learnt(salts, tiny):
    source = salts.open_source("others", reader="none", uri="nowhere")
    method = salts.method_id(mlipdb.Method(kind="dft", name="PBEsol"))
    ids = list(salts.append(sample_records(12, start=12, per_material=1), source_id=source, method_id=method))
    freeze(salts, "both", filter="all")
    with salts.write() as session:
        for member in session.scalars(select(SubsetMember)):
            member.split = "validation" if member.structure_id in ids else "train"
    with pytest.raises(TrainError, match=r"another method \(2: PBEsol\) than those to train on \(1: PBE\)"):
        prepare(salts, load(salts, "both"), recipe=tiny(), teacher_id=None, devices=1, say=print)


@pytest.mark.parametrize(
    ("settings", "devices", "batch", "said"),
    [
        ((), 2, {"devices": 2, "graphs": 4}, ""),
        (
            (),
            3,
            {"devices": 3, "graphs": 3},
            "a step has 3 structures on average, 1 for each of 3 devices, and not the 4",
        ),
        ((), 8, {"devices": 8, "graphs": 8}, "a step has 8 structures on average"),
        (("batch.edges=60",), 8, {"devices": 8, "edges": 56}, ""),
        (("batch.edges=6",), 8, {"devices": 8, "edges": 8}, ""),
    ],
)
def test_how_many_structures_a_step_really_has_is_said_and_kept(salts, tiny, settings, devices, batch, said):
    lines = []
    frozen = freeze(salts, "salts", filter="all", fractions=(60, 20, 20))
    prepared = prepare(salts, frozen, recipe=tiny(*settings), teacher_id=None, devices=devices, say=lines.append)
    assert prepared.report["batch"] == batch
    about = "\n".join(line for line in lines if line.startswith("a step has"))
    assert about.startswith(said)
    assert bool(about) == bool(said)


def test_atomic_energies_with_and_without_e0_are_not_learnt_together(tmp_path, tiny):
    db = training_database(tmp_path / "db", structures=15)
    frozen = load(db, "toy")
    labels = [replace(label, method=None, method_id=None) for _, label in db.read(frozen.ids, method_id=2)]
    mixed = [replace(label, atomic_energies_include_e0=place % 2 == 0) for place, label in enumerate(labels)]
    new = [NewLabel(structure_id=int(i), part=0, label=each) for i, each in zip(frozen.ids, mixed, strict=True)]
    teacher = db.method_id(mlipdb.Method(kind="teacher", name="mixed"))
    db.append_labels(new, method_id=teacher)
    with pytest.raises(TrainError, match=r"some of the teacher's atomic energies contain E0.*mlipdb labels drop"):
        prepare(db, frozen, recipe=tiny(), teacher_id=teacher, devices=1, say=print)
    db.close()


def test_atomic_energies_of_one_composition_are_learnt_without_a_constant_for_each_element(tmp_path, tiny):
    """Labels have 0.5 eV more for each oxygen, and no E0 is fixed: all that is left to learn is around zero."""
    db = training_database(tmp_path / "db", structures=18)
    frozen = freeze(db, "water", filter='elements HAS ALL "H","O"')
    prepared = prepare(db, frozen, recipe=tiny(), teacher_id=2, devices=1, say=print)
    assert (prepared.report["alignment"]["rank"], prepared.report["alignment"]["elements"]) == (1, 2)
    feed, left = prepared.train.feed, {1: [], 8: []}
    for record in feed.source.stream(feed.ids):
        energies = feed.convention.interaction_atomic_energies(record)
        for number, energy in zip(record.structure.atomic_numbers.tolist(), energies, strict=True):
            left[number].append(energy)
    assert [sum(each) / len(each) for each in left.values()] == pytest.approx([0.0, 0.0], abs=0.02)
    db.close()


def test_edges_are_counted_once_for_all_trainings(salts, tiny, monkeypatch):
    frozen, listed, every = freeze(salts, "salts", filter="all", fractions=(50, 25, 25)), [], records.neighbours
    monkeypatch.setattr(records, "neighbours", lambda *words, **more: listed.append(1) or every(*words, **more))

    def digest(*settings):
        before = len(listed)
        made = prepare(salts, frozen, recipe=tiny(*settings), teacher_id=None, devices=1, say=print)
        return made.digest, len(listed) - before

    count = len(frozen.splits["train"]) + len(frozen.splits["validation"])
    first, fresh = digest()
    assert fresh == count
    assert digest("seed=7", "data.cache_gib=0.5") == (first, 0)
    assert digest("model.cutoff=3.5")[1] == count
    kept = sorted((salts.path / "counts").iterdir())
    assert len(kept) == 4
    for file in kept:
        file.write_bytes(file.read_bytes()[:-30])
    assert digest() == (first, count)
    assert digest() == (first, 0)


def test_counts_of_other_structures_are_not_taken(salts, tiny):
    frozen = freeze(salts, "salts", filter="all", fractions=(50, 25, 25))
    made = [prepare(salts, frozen, recipe=tiny(), teacher_id=None, devices=1, say=print)]
    for file in (salts.path / "counts").iterdir():
        with np.load(file) as arrays:
            wrong = {name: array + 1 for name, array in arrays.items()}
        np.savez(file, **wrong)
    made.append(prepare(salts, frozen, recipe=tiny(), teacher_id=None, devices=1, say=print))
    assert made[0].digest == made[1].digest


def test_aligned_by_structure_a_teacher_off_by_another_constant_each_time_contradicts_no_label(tmp_path, tiny):
    db = training_database(tmp_path / "db", structures=15)
    frozen = load(db, "toy")
    labels = [replace(label, method=None, method_id=None) for _, label in db.read(frozen.ids, method_id=2)]
    off = [replace(each, atomic_energies=each.atomic_energies + 0.1 * place) for place, each in enumerate(labels)]
    new = [NewLabel(structure_id=int(i), part=0, label=each) for i, each in zip(frozen.ids, off, strict=True)]
    teacher = db.method_id(mlipdb.Method(kind="teacher", name="off"))
    db.append_labels(new, method_id=teacher)
    recipe = tiny("distillation.alignment='structure'")
    prepared = prepare(db, frozen, recipe=recipe, teacher_id=teacher, devices=1, say=print)
    assert prepared.report["alignment"]["rms_after"] > 0.05
    feed = prepared.train.feed
    for record in feed.source.stream(feed.ids):
        total = feed.convention.interaction_atomic_energies(record).sum()
        assert total == pytest.approx(feed.convention.interaction_energy(record), abs=1e-9)
    db.close()
