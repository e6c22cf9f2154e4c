"""What facets count is what SQL counts, whoever wrote the labels."""

import random
from dataclasses import asdict

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

import mlipdb
from mlipdb.catalog import Facet, ShardRow
from mlipdb.catalog.facets import drop_facets
from mlipdb.labels import ENERGY_KINDS, Label, Method
from mlipdb.records import NewLabel, NewStructure, RejectedRecord, SpaceGroup
from mlipdb.stats import counts, statistics
from mlipdb.stats.packed import packed_numbers
from mlipdb.structures import make_structure

METHODS = [
    Method(kind="dft", name="PBE"), Method(kind="dft", name="r2SCAN"), Method(kind="teacher", name="one"),
    Method(kind="teacher", name="fails"),
]  # fmt: skip
FILTERS = ["all", "O", "Zr", "NOT O", "gap>=1", "nsites>3", "Fm-3m", 'tags HAS "split=train"', "id>40 AND id<210"]


def label(draw, structure):
    energies = {kind: draw.uniform(-9, 0) * len(structure) for kind in ENERGY_KINDS if draw.random() < 0.3}
    forces = np.random.default_rng(draw.randrange(10**6)).normal(size=(len(structure), 3)) * 10 ** draw.uniform(-4, 2)
    return Label(
        **energies,
        band_gap=draw.choice([None, 0.0, 1.5]),
        forces=draw.choice([None, forces, 0 * forces]),
        magmoms=draw.choice([None, np.ones(len(structure))]),
        stress=np.zeros((3, 3)) if all(structure.pbc) else None,
        atomic_energies=np.zeros(len(structure)),
        atomic_energies_include_e0=True,
    )


def records(draw, count, *, methods=(None,)):
    for number in range(count):
        numbers = draw.choices([1, 8, 8, 26, 38], k=draw.randint(1, 6))
        periodic = draw.choice([(True, True, True), (False, False, False), (True, False, False)])
        positions = np.random.default_rng(draw.randrange(10**6)).random((len(numbers), 3)) * 5
        structure = make_structure(numbers, positions, cell=5 * np.eye(3), pbc=periodic)
        yield NewStructure(
            structure=structure,
            label=label(draw, structure) if draw.random() < 0.7 else None,
            external_id=f"frame-{number}",
            material=f"mp-{number // 3}",
            space_group=draw.choice([None, SpaceGroup(225, "Fm-3m")]) if all(periodic) else None,
            method_id=draw.choice(methods),
            tags={"split": draw.choice(["train", "test"])} if draw.random() < 0.5 else {},
        )


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """Two sources, labels of four methods with and without each quantity, failed ones, Hessian rows, a quarantine."""
    db = mlipdb.create(tmp_path_factory.mktemp("varied") / "db")
    draw = random.Random(3)
    pbe, scan, teacher, fails = map(db.method_id, METHODS)
    first, second = (db.open_source(name, reader="none", uri="-") for name in ("one", "two"))
    rejected = [RejectedRecord(key="bad", location="frame 7", reason="no atoms")]
    ids = db.append(list(records(draw, 130)), source_id=first, method_id=pbe, rejected=rejected, duplicates=2)
    ids += db.append(list(records(draw, 90, methods=(pbe, scan, teacher, None))), source_id=second)
    unlabelled = [i for i in ids if not db.labels(i)]
    for method in (scan, teacher):
        chosen = unlabelled[::-2] if method == scan else unlabelled[:30]
        taught = [NewLabel(structure_id=i, part=0, label=label(draw, db.structure(i))) for i in chosen]
        db.append_labels(taught, method_id=method)
    rows = [(i, len(db.structure(i))) for i in unlabelled[:12]]
    for part in (1, 2):
        numbers = np.array([part], dtype=np.int32)
        hessian = [Label(hessian_row_numbers=numbers, hessian_rows=np.ones((1, atoms, 3))) for _, atoms in rows]
        new = [NewLabel(structure_id=i, part=part, label=each) for (i, _), each in zip(rows, hessian, strict=True)]
        db.append_labels(new[: 8 * part], method_id=teacher)
    db.append_labels([NewLabel(structure_id=i, part=0, label=None, reason="no") for i in ids[::7]], method_id=fails)
    yield db
    db.close()


def both(session, filter):
    scope = counts.scope_of(session, filter)
    return packed_numbers(session, scope), counts.numbers(session, scope)


def plain(numbers):
    """Everything but the energies, which are compared within rounding, in one order."""
    coverage = sorted((c.method_id, c.status, c.arrays, c.count, sorted(c.scalars.items())) for c in numbers.coverage)
    left_out = ("coverage", "energies", "sample")
    return {name: value for name, value in vars(numbers).items() if name not in left_out} | {"coverage": coverage}


@pytest.mark.parametrize("filter", FILTERS)
def test_facets_and_sql_count_the_same(varied, filter):
    with varied.session() as session:
        packed, by_sql = both(session, filter)
        assert packed is not None
        assert plain(packed) == plain(by_sql)
        assert packed.energies.keys() == by_sql.energies.keys()
        for method, energies in packed.energies.items():
            first, second = asdict(energies), asdict(by_sql.energies[method])
            assert first.pop("fine") == second.pop("fine")
            assert first == pytest.approx(second)


def test_the_database_of_these_tests_has_what_is_hard_to_count(varied):
    found = statistics(varied)
    assert len(found.methods) == 4
    assert found.unlabelled > 0
    assert len({method.energy_kind for method in found.methods}) == 2  # one method gave no energy
    assert max(method.hessian_rows for method in found.methods) == 8 + 12
    assert [source.quarantined for source in found.sources] == [1, 0]


@pytest.mark.parametrize("array", ["forces", "magmoms"])
@pytest.mark.parametrize("filter", ["all", "O"])
def test_the_same_structures_are_sampled(varied, filter, array):
    with varied.session() as session:
        packed, by_sql = both(session, filter)
        for method in range(1, 4):
            for count, seed in ((3, 0), (3, 1), (1000, 0)):
                settings = {"count": count, "seed": seed, "array": array}
                assert packed.sample(method, **settings) == by_sql.sample(method, **settings)


def test_a_shard_without_facets_or_with_those_of_a_later_version_is_counted_by_sql(varied):
    with Session(varied.engine) as session:
        row = session.scalars(select(Facet).where(Facet.name == "nsites")).first()
        row.data = b"\xff" + row.data[1:]
        session.flush()
        assert both(session, "all")[0] is None
        drop_facets(session, [session.scalars(select(ShardRow.id)).first()])
        assert both(session, "all")[0] is None
        session.rollback()


def test_an_empty_database_has_nothing_to_count(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    with db.session() as session:
        packed, by_sql = both(session, "all")
        assert plain(packed) == plain(by_sql)
    db.close()
