"""Facets and SQL give the same answer to every filter, whoever wrote the rows and in what order."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

import mlipdb
from mlipdb.catalog import Facet, ShardRow, StructureRow
from mlipdb.catalog.facets import drop_facets, fill_facets, wrong_facets
from mlipdb.catalog.label_facets import gap_step
from mlipdb.catalog.packing import UnknownPackingError, pack_ids, unpack_ids, unpack_set
from mlipdb.labels import Label, Method
from mlipdb.query import count_structures, frozen_subsets, select_structure_ids, structure_ids
from mlipdb.query.facets import GapFacet
from mlipdb.query.find import match_facets
from mlipdb.query.predicate import COMPARISONS
from mlipdb.query.resolve import resolve
from mlipdb.records import NewLabel, NewStructure, SpaceGroup
from mlipdb.structures import make_structure

PBE, SCAN = Method(kind="dft", name="PBE"), Method(kind="dft", name="r2SCAN")
TEACHER = Method(kind="teacher", name="mace")


def label(draw, structure, **values):
    gap = draw.choice([None, 0.0, 0.0, 0.5, 1.25, 2.0, 5.0, 7.31])
    force = draw.choice([None, None, 0.0, 0.5, 1.25])
    forces = None if force is None else np.tile([force, 0.0, 0.0], (len(structure), 1))
    return Label(energy_uncorrected=-1.0, band_gap=gap, forces=forces, **values)


def records(draw, start, count):
    """Structures with one to four elements, periodic or not, with and without labels and space groups."""
    for number in range(start, start + count):
        numbers = draw.choices([1, 8, 8, 8, 26, 38, 39], k=draw.randint(1, 6))
        periodic = draw.choice([(True, True, True), (True, True, True), (False, False, False), (True, False, False)])
        positions = np.random.default_rng(number).random((len(numbers), 3)) * 5
        structure = make_structure(numbers, positions, cell=5 * np.eye(3), pbc=periodic)
        group = draw.choice([None, SpaceGroup(1, "P1"), SpaceGroup(221, "Pm-3m"), SpaceGroup(225, "Fm-3m")])
        yield NewStructure(
            structure=structure,
            label=label(draw, structure) if draw.random() < 0.8 else None,
            external_id=f"frame-{number}",
            material=f"mp-{number // 3}",
            space_group=group if all(periodic) else None,
        )


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """Three shards of structures of two sources, and labels that came later: of another functional and of a teacher."""
    database = mlipdb.create(tmp_path_factory.mktemp("facets") / "db")
    draw = random.Random(7)
    pbe, scan, teacher = map(database.method_id, (PBE, SCAN, TEACHER))
    first, second = (database.open_source(name, reader="none", uri="-") for name in ("one", "two"))
    every = database.append(list(records(draw, 0, 203)), source_id=first, method_id=pbe)
    every += database.append(list(records(draw, 203, 1)), source_id=second, method_id=teacher)
    own = [replace(record, method_id=draw.choice([pbe, scan, teacher])) for record in records(draw, 204, 90)]
    every += database.append(own, source_id=second)
    for method in (scan, teacher):
        chosen = draw.sample(every, 70)
        database.append_labels(
            [
                NewLabel(structure_id=i, part=0, label=label(draw, database.structure(i)))
                for i in chosen
                if not has(database, i, method)
            ]
            + [NewLabel(structure_id=i, part=1, label=None, reason="it failed") for i in chosen[:2]],
            method_id=method,
        )
    yield database
    database.close()


def has(db, identity, method):
    return any(found.method_id == method for found in db.labels(identity))


FIELDS = st.one_of(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(
            [
                *("gap", "nsites", "nelements", "space_group_it_number", "nperiodic_dimensions", "id"),
                *("elements LENGTH ", "_mlipdb_max_force"),
            ]
        ),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.sampled_from([0, 1, 2, 3, 5, 100, 203, 204, 221, -1]),
    ),
    st.builds(
        "{}{}{!r}".format,
        st.sampled_from(["gap", "nsites", "space_group_it_number", "id", "_mlipdb_max_force"]),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.one_of(
            st.sampled_from([0.5, 1.25, 7.31, 2.0, 1e300, 200.5, 2**53 + 1, 7.3100000000000005, 1.2499999999999998]),
            st.integers(0, 160).map(lambda step: step * 0.05),
            st.floats(0, 8),
        ),
    ),
    st.builds(
        "elements HAS {}{}".format,
        st.sampled_from(["ALL ", "ANY ", "ONLY "]),
        st.lists(st.sampled_from(['"H"', '"O"', '"Fe"', '"Sr"', '"Y"', '"Li"', '"Na"', '"K"']), min_size=1).map(
            ",".join
        ),
    ),
    st.builds(
        "{} IS {}".format,
        st.sampled_from(
            ["gap", "space_group_it_number", "nsites", "elements", "_mlipdb_source", "id", "_mlipdb_max_force"]
        ),
        st.sampled_from(["KNOWN", "UNKNOWN"]),
    ),
    st.sampled_from(
        [
            *("all", "O", "Fe", "Li", "Fe-O", "Fe-O-Sr", "Pm-3m", "Fm-3m", '_mlipdb_chemical_system!="O"'),
            *("_mlipdb_has_forces", "_mlipdb_has_forces!=TRUE", "_mlipdb_has_stress", '_mlipdb_source="two"'),
            *('_mlipdb_source CONTAINS "o"', '_mlipdb_source!="one"', "_mlipdb_chemical_system IS KNOWN"),
            *('space_group_symbol_hermann_mauguin STARTS WITH "P"', "space_group_symbol_hermann_mauguin IS UNKNOWN"),
        ]
    ),
)
FILTERS = st.recursive(
    FIELDS,
    lambda inner: st.one_of(
        inner.map("NOT ({})".format),
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
    ),
    max_leaves=5,
)


def by_sql(session, text):
    return list(session.scalars(select_structure_ids(text, subsets=frozen_subsets(session))))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=FILTERS)
def test_facets_and_sql_agree_on_any_filter(db, text):
    with db.session() as session:
        expected = by_sql(session, text)
        assert structure_ids(session, text).tolist() == expected
        assert count_structures(session, text) == len(expected)


@pytest.mark.parametrize("text", ["O AND gap>=2", "NOT gap>1 AND Fm-3m", "Fe-O", "nsites<=3 AND _mlipdb_has_forces"])
def test_the_everyday_filters_are_answered_from_facets(db, text):
    with db.session() as session:
        assert match_facets(session, resolve(text, subsets={})) is not None


@pytest.mark.parametrize("text", ["Fe2O3", '_mlipdb_material="mp-1" AND O', "_mlipdb_energy<0", "gap<9007199254740993"])
def test_what_has_no_facet_is_answered_by_sql(db, text):
    with db.session() as session:
        assert match_facets(session, resolve(text, subsets={})) is None
        assert structure_ids(session, text).tolist() == by_sql(session, text)


def test_facets_made_again_from_the_tables_are_those_that_the_appends_wrote(db):
    def stored(session):
        return {(row.name, row.shard_id): row.data for row in session.scalars(select(Facet))}

    with Session(db.engine) as session:
        before = stored(session)
        session.expunge_all()
        drop_facets(session)
        assert fill_facets(session) == len(session.scalars(select(ShardRow)).all())
        assert stored(session) == before
        session.rollback()


def test_a_shard_without_facets_sends_every_query_to_sql_until_they_are_filled(db):
    with Session(db.engine) as session:
        expected = structure_ids(session, "O AND gap>=1").tolist()
        shard = session.scalars(select(ShardRow.id)).first()
        drop_facets(session, [shard])
        assert match_facets(session, resolve("O", subsets={})) is None
        assert structure_ids(session, "O AND gap>=1").tolist() == expected
        assert wrong_facets(session) == {}
        assert fill_facets(session) == 1
        assert match_facets(session, resolve("O", subsets={})) is not None
        assert structure_ids(session, "O AND gap>=1").tolist() == expected
        session.rollback()


def test_facets_that_contradict_the_rows_are_named(db):
    with Session(db.engine) as session:
        assert wrong_facets(session) == {}
        session.execute(update(StructureRow).where(StructureRow.id == 5).values(nsites=StructureRow.nsites + 1))
        (wrong,) = wrong_facets(session)
        assert wrong == session.get_one(ShardRow, 1).path
        session.rollback()


def test_facets_know_structures_whose_neighbours_were_lost(db):
    """A repair may leave gaps in the ids of a shard."""
    with Session(db.engine) as session:
        doomed = range(10, 20)
        for table in reversed(Facet.metadata.sorted_tables):
            if "structure_id" in table.columns:
                session.execute(delete(table).where(table.c.structure_id.in_(doomed)))
        session.execute(delete(StructureRow).where(StructureRow.id.in_(doomed)))
        drop_facets(session)
        fill_facets(session)
        for text in ("all", "O", "gap>=1 AND NOT Fe", "id>12 AND id<25"):
            assert structure_ids(session, text).tolist() == by_sql(session, text)
            assert match_facets(session, resolve(text, subsets={})) is not None
        session.rollback()


def test_facets_of_a_version_to_come_are_left_alone(db):
    with Session(db.engine) as session:
        row = session.scalars(select(Facet).where(Facet.name == "elements/8")).first()
        row.data = b"\xff" + row.data[1:]
        session.flush()
        with pytest.raises(UnknownPackingError):
            unpack_set(row.data)
        assert structure_ids(session, "O").tolist() == by_sql(session, "O")
        session.rollback()


def test_a_labels_shard_goes_with_its_facets(db):
    with Session(db.engine) as session:
        facets = session.scalars(select(Facet.shard_id).where(Facet.name == "labelled")).all()
        kinds = session.scalars(select(ShardRow.kind).where(ShardRow.id.in_(facets))).all()
        assert kinds == ["labels", "labels"]


@given(constant=st.floats(-1, 20), gap=st.floats(0, 20))
def test_where_the_steps_of_a_gap_decide_they_decide_right(constant, gap):
    facet = GapFacet()
    for operator, expected in ((">=", gap >= constant), ("<", gap < constant)):
        if facet.names(operator, [constant]) == {"band_gap/steps"}:
            assert COMPARISONS[operator](gap_step(gap), gap_step(constant)) == expected


@pytest.mark.parametrize("constant", [0, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4.5, 5, 10])
def test_the_steps_decide_for_the_constants_that_people_write(constant):
    assert GapFacet().names(">=", [constant]) == {"band_gap/steps"}


@given(ids=st.sets(st.integers(0, 2**40)))
def test_packed_ids_come_back(ids):
    expected = np.array(sorted(ids), np.int64)
    assert np.array_equal(unpack_ids(pack_ids(expected)).all(), expected)
