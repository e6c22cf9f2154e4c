"""How far methods are apart is worked out from their labels, stored, asked for by filters and kept up to date."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

import mlipdb
from mlipdb import subsets
from mlipdb.catalog import Disagreement, LabelRow, StructureDisagreement
from mlipdb.catalog.copy import copy_catalog
from mlipdb.errors import ConfigError, LabelError, LockedError, NotFoundError, QueryError
from mlipdb.labelling import disagreement, spread
from mlipdb.labelling.disagreement import (
    disagree,
    disagreements,
    forget_disagreement,
    refresh_disagreements,
)
from mlipdb.labelling.disputed import most_disputed
from mlipdb.labelling.holdings import drop_labels
from mlipdb.labelling.runner import label
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel, NewStructure
from mlipdb.repair import repair
from mlipdb.store.lock import WriterLock
from mlipdb.structures import make_structure
from mlipdb.testing.kill import run_and_kill
from mlipdb.testing.potential import PairPotential

COUNT = 24


def structures():
    """Molecules of one to four atoms of H, C and O."""
    random = np.random.default_rng(3)
    return [
        make_structure(random.choice([1, 6, 8], size), random.uniform(0, 5, (size, 3)))
        for size in random.integers(1, 5, COUNT).tolist()
    ]


@pytest.fixture
def db(tmp_path):
    """Molecules without labels, two of a material."""
    database = mlipdb.create(tmp_path / "db")
    source = database.open_source("made", reader="none", uri="made in the test")
    records = [
        NewStructure(structure=each, label=None, external_id=f"m-{key}", material=str(key // 2))
        for key, each in enumerate(structures())
    ]
    database.append(records, source_id=source)
    yield database
    database.close()


def teach(db, name, *, energies=None, forces=None, ids=None):
    """Labels of a teacher for some structures: given numbers, else random ones that the name fixes."""
    method = db.method_id(Method(kind="teacher", name=name, weights_sha256=name * 4))
    ids = list(range(1, COUNT + 1)) if ids is None else list(ids)
    random = np.random.default_rng(sum(map(ord, name)))
    records = []
    for structure in db.structures(ids):
        given = Label(
            energy_uncorrected=float(random.normal() - 3 * len(structure)),
            forces=random.normal(size=(len(structure), 3)),
        )
        if energies is not None:
            given = replace(given, energy_uncorrected=energies(structure))
        if forces is not None:
            given = replace(given, forces=forces(structure))
        records.append(NewLabel(structure_id=structure.id, part=0, label=given))
    db.append_labels(records, method_id=method)
    return method


def numbers(db, name):
    """Forces and energy of each structure that has them."""
    row = StructureDisagreement
    query = select(row.structure_id, row.forces, row.energy).join(Disagreement).where(Disagreement.name == name)
    with db.session() as session:
        return {identity: (forces, energy) for identity, forces, energy in session.execute(query)}


def test_the_force_number_is_the_spread_on_the_atom_where_it_is_largest(db):
    def push(first, last):
        """Along x on the first atom and along y on the last."""

        def forces(structure):
            made = np.zeros((len(structure), 3))
            made[0, 0] += first
            made[-1, 1] += last
            return made

        return forces

    wanted = db.query("nsites>=2").ids.tolist()
    a, b, c = (teach(db, name, forces=push(*p)) for name, p in (("a", (3, 0)), ("b", (0, 0)), ("c", (0, 0.6))))
    disagree(db, [a, b, c])
    # on the first atom x is 3, 0, 0: mean 1, squares 4, 1, 1; on the last y is 0, 0, 0.6: 0.04, 0.04, 0.16
    assert {identity: numbers(db, "a_b_c")[identity][0] for identity in wanted} == pytest.approx(
        dict.fromkeys(wanted, np.sqrt(6 / 3))
    )
    disagree(db, [b, c])
    assert {identity: numbers(db, "b_c")[identity][0] for identity in wanted} == pytest.approx(
        dict.fromkeys(wanted, 0.3)
    )


def dense_energy_spread(items, energies):
    """The same number by one dense least-squares fit a method; energies are (methods, structures) in eV."""
    elements = [1, 6, 8]
    atoms = np.array([len(item) for item in items])
    fractions = np.array([[item.composition.get(number, 0) / len(item) for number in elements] for item in items])
    apart = energies / atoms - (energies / atoms).mean(axis=0)
    rest = [each - fractions @ np.linalg.lstsq(fractions, each, rcond=None)[0] for each in apart]
    return np.sqrt(np.square(rest).mean(axis=0))


def test_each_teachers_own_kind_of_energy_counts_and_dft_gives_the_teachers_kind(db):
    """Uncorrected energies that differ, in labels whose teacher gives corrected ones, are not what is compared."""
    ids = list(range(1, COUNT + 1))
    random = np.random.default_rng(4)
    made = [
        Label(energy_uncorrected=float(random.normal()), energy_corrected=float(key), forces=np.zeros((len(each), 3)))
        for key, each in enumerate(db.structures(ids))
    ]
    teacher = Method(kind="teacher", name="corrected", settings={"energy_kind": "energy_corrected"})
    for method in (teacher, Method(kind="dft", name="dft")):
        given = [each if method.kind == "dft" else replace(each, energy_uncorrected=None) for each in made]
        records = [NewLabel(structure_id=key, part=0, label=one) for key, one in zip(ids, given, strict=True)]
        db.append_labels(records, method_id=db.method_id(method))
    disagree(db, [1, 2], name="same")
    assert [energy for _, energy in numbers(db, "same").values()] == pytest.approx([0.0] * COUNT, abs=1e-12)


def test_the_energy_number_is_what_a_constant_per_element_leaves(db):
    zeros = {1: 13.6, 6: -3.25, 8: 2043.5}
    methods = [teach(db, name) for name in ("a", "b")]
    items = db.structures(range(1, COUNT + 1))
    energies = np.array([[label.energy_uncorrected for _, label in db.read(range(1, COUNT + 1), method_id=m)]
                         for m in methods])  # fmt: skip
    shifted = iter(energies[1] + [sum(zeros[z] for z in item.atomic_numbers.tolist()) for item in items])
    methods.append(teach(db, "b shifted", energies=lambda structure: float(next(shifted))))
    disagree(db, methods[:2], name="plain")
    disagree(db, [methods[0], methods[2]], name="shifted")
    disagree(db, methods[1:], name="zeros")
    plain, expected = numbers(db, "plain"), dense_energy_spread(items, energies)
    assert [plain[key][1] for key in sorted(plain)] == pytest.approx(expected.tolist(), abs=1e-9)
    assert {key: each[1] for key, each in numbers(db, "shifted").items()} == pytest.approx(
        {key: each[1] for key, each in plain.items()}, abs=1e-9
    )
    assert max(each[1] for each in numbers(db, "zeros").values()) < 1e-9
    with db.session() as session:
        found = session.scalars(select(Disagreement.constants).where(Disagreement.name == "zeros")).one()
    for symbol, number in (("H", 1), ("C", 6), ("O", 8)):
        taken = [found[str(method)][symbol] for method in methods[1:]]
        assert taken == pytest.approx([-zeros[number] / 2, zeros[number] / 2], abs=1e-7)


def test_structures_that_are_not_more_than_the_constants_have_forces_but_no_energy(db):
    methods = [teach(db, name, ids=[1, 2]) for name in ("a", "b")]
    report = disagree(db, methods)
    assert report.energy is None
    assert report.forces is not None
    assert db.query("_mlipdb_energy_disagreement IS KNOWN").ids.tolist() == []
    assert db.query("_mlipdb_disagreement IS KNOWN").ids.tolist() == [1, 2]


def test_a_filter_asks_for_it_and_what_is_not_labelled_by_all_is_unknown(db):
    disagree(db, [teach(db, "a"), teach(db, "b", ids=range(1, 21))])
    found = numbers(db, "a_b")
    assert sorted(found) == list(range(1, 21))
    above = [identity for identity, (forces, _) in found.items() if forces > 0.9]
    assert 0 < len(above) < 20
    assert db.query("_mlipdb_disagreement > 0.9").ids.tolist() == above
    assert db.query("0.9 < _mlipdb_disagreement_a_b").ids.tolist() == above
    assert db.query("NOT _mlipdb_disagreement > 0.9").ids.tolist() == sorted(set(found) - set(above))
    assert db.query("_mlipdb_disagreement IS UNKNOWN").ids.tolist() == [21, 22, 23, 24]
    odd = [identity for identity, (_, energy) in found.items() if energy > 0.3]
    assert db.query("_mlipdb_energy_disagreement > 0.3 AND id IS KNOWN").ids.tolist() == odd
    with db.session() as session:
        assert mlipdb.query.count_structures(session, "_mlipdb_disagreement>0.9") == len(above)
    assert len(subsets.freeze(db, "doubtful", filter="_mlipdb_disagreement > 0.9").ids) == len(above)


def test_of_several_the_filter_says_which(db):
    a, b, c = (teach(db, name) for name in "abc")
    disagree(db, [a, b])
    disagree(db, [a, b, c], name="three")
    with pytest.raises(QueryError, match="could mean _mlipdb_disagreement_a_b or _mlipdb_disagreement_three"):
        db.query("_mlipdb_disagreement > 0.1")
    with pytest.raises(QueryError, match=r"_mlipdb_disagreement_thre'.*Did you mean '_mlipdb_disagreement_three'"):
        db.query("_mlipdb_disagreement_thre > 0.1")
    three = [identity for identity, (forces, _) in numbers(db, "three").items() if forces > 1]
    assert db.query("_mlipdb_disagreement_three > 1").ids.tolist() == three
    forget_disagreement(db, "a_b")
    assert db.query("_mlipdb_disagreement > 1").ids.tolist() == three
    with pytest.raises(NotFoundError, match="Did you mean 'three'"):
        forget_disagreement(db, "thre")


def test_without_any_it_is_unknown(db):
    assert db.query("_mlipdb_disagreement > 0 OR _mlipdb_disagreement IS KNOWN").ids.tolist() == []


def from_scratch(db, name):
    """The numbers of a stored disagreement, worked out anew."""
    [wanted] = [each for each in disagreements(db) if each.name == name]
    disagree(db, wanted.methods, subset="id IS KNOWN" if wanted.filter == "all" else "all", name="scratch")
    found = numbers(db, "scratch")
    forget_disagreement(db, "scratch")
    return found


def test_new_labels_are_taken_in_and_old_forces_are_not_read_again(db, monkeypatch):
    a, b = teach(db, "a", ids=range(1, 13)), teach(db, "b")
    assert disagree(db, [a, b]).structures == 12
    before = numbers(db, "a_b")
    teach(db, "a", ids=range(13, 19))
    asked = []
    monkeypatch.setattr(
        disagreement,
        "force_spread",
        lambda db, ids, methods: (asked.extend(ids), spread.force_spread(db, ids, methods))[1],
    )
    [report] = refresh_disagreements(db, method_id=a)
    assert asked == list(range(13, 19))
    assert (report.structures, report.fresh, report.gone) == (18, 6, 0)
    after = numbers(db, "a_b")
    assert {key: after[key][0] for key in before} == {key: each[0] for key, each in before.items()}
    assert after == from_scratch(db, "a_b")
    assert refresh_disagreements(db, method_id=99) == ()


def test_a_run_of_the_labeller_brings_it_up_to_date(db):
    weak, strong = PairPotential(strength=0.2), PairPotential(strength=0.4)
    ids = np.arange(1, COUNT + 1)
    methods = [label(db, teacher, ids=ids[:10]).method_id for teacher in (weak, strong)]
    disagree(db, methods, name="pair")
    label(db, weak, ids=ids)
    assert sorted(numbers(db, "pair")) == list(range(1, 11))
    label(db, strong, ids=ids)
    assert sorted(numbers(db, "pair")) == ids.tolist()
    largest = {
        identity: taught.max_force
        for identity, (_, taught) in zip(ids.tolist(), db.read(ids, method_id=methods[0]), strict=True)
    }
    # both forces are along the same line and twice as large in the second: their spread is half of the first
    assert {key: each[0] for key, each in numbers(db, "pair").items()} == pytest.approx(
        {key: value / 2 for key, value in largest.items()}, abs=1e-12
    )


def test_lost_and_changed_labels_are_noticed(db):
    a, b = teach(db, "a"), teach(db, "b")
    disagree(db, [a, b])
    with db.write() as session:
        session.execute(delete(LabelRow).where(LabelRow.method_id == b, LabelRow.structure_id <= 6))
    teach(db, "b", ids=[1, 2], forces=lambda structure: np.full((len(structure), 3), 7.0))
    [report] = refresh_disagreements(db)
    assert (report.structures, report.fresh, report.gone) == (20, 2, 4)
    assert numbers(db, "a_b") == from_scratch(db, "a_b")
    assert disagree(db, [a, b]).fresh == 0, "a second call finds nothing to do"


def test_dropped_labels_take_their_numbers_along_and_new_ones_bring_them_back(db):
    a, b, c = (teach(db, name) for name in "abc")
    for methods in ([a, b], [b, c]):
        disagree(db, methods)
    drop_labels(db, "a")
    assert numbers(db, "a_b") == {}
    assert len(numbers(db, "b_c")) == COUNT
    teach(db, "a", ids=[3, 4])
    refresh_disagreements(db)
    assert sorted(numbers(db, "a_b")) == [3, 4]


def test_a_failure_is_no_label_and_a_label_without_forces_has_no_force_number(db):
    a, b = teach(db, "a"), teach(db, "b", ids=range(3, COUNT + 1))
    failure = [NewLabel(structure_id=1, part=0, label=None, reason="does not cover H")]
    bare = [NewLabel(structure_id=2, part=0, label=Label(energy_uncorrected=-1.0))]
    for records in (failure, bare):
        db.append_labels(records, method_id=b)
    disagree(db, [a, b])
    found = numbers(db, "a_b")
    assert sorted(found) == list(range(2, COUNT + 1))
    assert found[2][0] is None
    assert found[2][1] is not None
    assert db.query("_mlipdb_disagreement IS UNKNOWN").ids.tolist() == [1, 2]


def test_the_same_methods_in_another_order_are_the_same_disagreement(db):
    a, b = teach(db, "a"), teach(db, "b")
    disagree(db, [a, b])
    before = numbers(db, "a_b")
    for report in (disagree(db, [b, a]), disagree(db, [b, a], name="a_b")):
        assert (report.name, report.methods, report.fresh) == ("a_b", (a, b), 0)
    disagree(db, [b, a], name="turned", subset="id>=1")
    assert {key: pytest.approx(each) for key, each in numbers(db, "turned").items()} == before


def test_what_makes_no_sense_is_refused_with_the_next_step(db):
    a, b = teach(db, "A-1"), teach(db, "b", ids=[1])
    with pytest.raises(ConfigError, match="two or more different"):
        disagree(db, [a, a])
    with pytest.raises(NotFoundError, match="no method 77"):
        disagree(db, [a, 77])
    with pytest.raises(ConfigError, match="--name"):
        disagree(db, [a, b], name="My Name")
    with pytest.raises(LabelError, match="no structure of 'id>1' has labels by all of 1 A-1 and 2 b; label"):
        disagree(db, [a, b], subset="id>1")
    assert disagree(db, [a, b]).name == "a_1_b"
    with pytest.raises(ConfigError, match="forget it first: mlipdb labels disagreements --forget a_1_b"):
        disagree(db, [a, b], subset="id>=1", name="a_1_b")
    with pytest.raises(QueryError, match="freeze it first"):
        disagree(db, [a, b], subset="_mlipdb_disagreement > 1", name="odd")


def test_two_methods_of_one_name_are_told_apart_by_their_numbers(db):
    teach(db, "a")
    other = db.method_id(Method(kind="teacher", name="a", weights_sha256="other"))
    labels = [NewLabel(structure_id=1, part=0, label=Label(forces=np.zeros((len(db.structure(1)), 3))))]
    db.append_labels(labels, method_id=other)
    assert disagree(db, [1, other]).name == f"a_1_a_{other}"


def test_a_disagreement_that_cannot_be_brought_up_to_date_says_why_and_stays(db):
    a, b = teach(db, "a", ids=range(1, 11)), teach(db, "b")
    subsets.freeze(db, "mine", filter="id<=12")
    disagree(db, [a, b], subset="mine")
    before = numbers(db, "a_b")
    teach(db, "a", ids=[11, 12])
    with WriterLock(db.path / "lock"):
        [report] = refresh_disagreements(db)
    assert "is writing to this database" in report.problem
    assert report.structures == 10
    assert numbers(db, "a_b") == before
    with pytest.raises(LockedError), WriterLock(db.path / "lock"):
        disagree(db, [a, b], subset="mine")
    assert [report.problem for report in refresh_disagreements(db)] == [None]
    assert sorted(numbers(db, "a_b")) == list(range(1, 13))


def test_pieces_of_any_size_give_the_same_numbers(db, monkeypatch):
    methods = [teach(db, name) for name in "abc"]
    disagree(db, methods, name="whole")
    for name, size in (("CHUNK", 5), ("READ", 3)):
        monkeypatch.setattr(spread, name, size)
    monkeypatch.setattr(disagreement, "AT_ONCE", 4)
    disagree(db, methods, name="pieces", subset="id IS KNOWN")
    pieces, whole = numbers(db, "pieces"), numbers(db, "whole")
    assert pieces.keys() == whole.keys()
    for identity, found in pieces.items():
        assert found == pytest.approx(whole[identity], abs=1e-12)


def test_the_most_disputed_come_first_one_of_each_material_if_asked(db):
    disagree(db, [teach(db, "a"), teach(db, "b")])
    found = numbers(db, "a_b")
    order = sorted(found, key=lambda identity: -found[identity][0])
    assert [each.id for each in most_disputed(db, "a_b", most=5)] == order[:5]
    by_energy = sorted(found, key=lambda identity: -found[identity][1])
    assert [each.id for each in most_disputed(db, "a_b", most=3, by="energy")] == by_energy[:3]
    small = [identity for identity in order if identity <= 9]
    assert [each.id for each in most_disputed(db, "a_b", most=4, filter="id<=9")] == small[:4]
    each = most_disputed(db, "a_b", most=100, one_per_material=True)
    assert len(each) == len({one.material for one in each}) == COUNT // 2
    assert each[0].id == order[0]
    assert (each[0].forces, each[0].energy) == found[order[0]]


def test_it_moves_with_the_catalog(db):
    disagree(db, [teach(db, "a"), teach(db, "b")])
    before = numbers(db, "a_b")
    copy_catalog(db.path, "moved.sqlite")
    moved = mlipdb.open(db.path)
    assert numbers(moved, "a_b") == before
    assert [report.fresh for report in refresh_disagreements(moved)] == [0]
    teach(moved, "c")
    disagree(moved, [2, 3])
    moved.close()


@pytest.mark.sqlite
def test_a_repaired_catalog_keeps_it_and_one_made_anew_gives_the_same_numbers_when_asked_again(db):
    methods = [teach(db, "a"), teach(db, "b")]
    disagree(db, methods)
    before = numbers(db, "a_b")
    db.close()
    assert repair(db.path).kept is None
    (db.path / "catalog.sqlite").unlink()
    assert "disagreements" in repair(db.path).losses[0]
    with mlipdb.open(db.path).session() as session:
        assert session.scalars(select(Disagreement)).all() == []
    again = mlipdb.open(db.path)
    found = {method.name: number for number, method in again.methods().items()}  # numbers are given anew
    disagree(again, [found["a"], found["b"]])
    assert numbers(again, "a_b") == before
    again.close()


PROGRAM = """
import sys
import mlipdb
from mlipdb.labelling.disagreement import refresh_disagreements
db = mlipdb.open(sys.argv[1])
print("ready", flush=True)
refresh_disagreements(db)
"""


@pytest.mark.slow
def test_a_process_killed_at_any_point_leaves_the_old_numbers_or_the_new(db):
    a, b = teach(db, "a", ids=range(1, 13)), teach(db, "b")
    disagree(db, [a, b])
    before = numbers(db, "a_b")
    teach(db, "a", ids=range(13, COUNT + 1))
    delay, states = 0.0, set()
    while run_and_kill(["-c", PROGRAM, str(db.path)], after=delay, ready="ready"):
        found = numbers(db, "a_b")
        assert found == before or sorted(found) == list(range(1, COUNT + 1))
        states.add(len(found))
        delay = delay * 1.6 + 0.02
    assert 12 in states
    refresh_disagreements(db)
    assert numbers(db, "a_b") == from_scratch(db, "a_b")


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), methods=st.integers(2, 5))
def test_the_spread_does_not_depend_on_the_order_of_the_methods_nor_on_what_all_have_in_common(seed, methods):
    random = np.random.default_rng(seed)
    fractions = spread._Fractions(
        np.array([1, 8]),
        np.repeat(np.arange(6), 2),
        np.tile([0, 1], 6),
        np.array([[part, 1 - part] for part in random.uniform(size=6)]).ravel(),
        np.ones(6),
    )
    inverse, rank = fractions.solver()
    assert rank == 2
    energies = random.normal(size=(methods, 6))
    left = energies - fractions.energies(fractions.project(energies) @ inverse)
    dense = np.zeros((6, 2))
    dense[fractions.row, fractions.column] = fractions.value
    expected = energies.T - dense @ np.linalg.lstsq(dense, energies.T, rcond=None)[0]
    assert left == pytest.approx(expected.T, abs=1e-8)
