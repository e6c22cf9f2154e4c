"""The everyday filters are answered from indexes; a scan of the structures or labels would take seconds."""

import pytest
from sqlalchemy import event, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session

from mlipdb.query import count_structures, select_structure_ids, structure_ids
from mlipdb.subsets.members import read_members


def plan(catalog, text: str) -> list[str]:
    statement = select_structure_ids(text, subsets=catalog.subsets)
    compiled = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    with Session(catalog.engine) as session:
        return [row[3] for row in session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("Y", "structure_element USING PRIMARY KEY (atomic_number=?)"),
        ("gap>=5", "label USING COVERING INDEX ix_label_band_gap (band_gap>?)"),
        ("NOT gap>=5", "label USING COVERING INDEX ix_label_band_gap (band_gap<?)"),
        ("gap IS KNOWN", "label USING COVERING INDEX ix_label_band_gap (band_gap>?)"),
        ("Pm-3m", "ix_structure_space_group_it_number (space_group_it_number=?)"),
        ("LiFePO4", "ix_structure_chemical_formula_reduced (chemical_formula_reduced=?)"),
        ("Li-Fe-O", "ix_structure_chemical_system (chemical_system=?)"),
        ('elements HAS ONLY "Li","O"', "ix_structure_chemical_system (chemical_system=?)"),
        ('_mlipdb_material="mp-1"', "ix_structure_material_id (material_id=?)"),
        ('_mlipdb_teacher HAS "nequix-mp-1"', "label USING INDEX ix_label_method_id_structure_id (method_id=?)"),
        ("first", "subset_member USING PRIMARY KEY (subset_id=?)"),
        ('tags HAS "split=train"', "structure_tag USING PRIMARY KEY (tag_id=?)"),
        ("Y AND gap>=5", "structure USING INTEGER PRIMARY KEY (rowid=?)"),
    ],
)
def test_an_everyday_filter_uses_its_index(catalog, text, index):
    steps = plan(catalog, text)
    assert any(index in step for step in steps), steps
    assert not any(step.startswith(("SCAN structure", "SCAN label")) for step in steps), steps


def statements(engine, action) -> list[tuple[str, object]]:
    """What an action asks the database."""
    asked = []

    def note(_connection, _cursor, statement, parameters, *_):
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        action()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return asked


def sqlite_plans(engine, asked) -> list[str]:
    with engine.connect() as connection:
        return [
            row[3]
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


@pytest.mark.parametrize("filter", ["O AND Pm-3m AND gap>=2", "_mlipdb_max_force<0.05"])
def test_a_count_reads_the_facets_it_needs_by_their_names_and_no_row_of_a_structure(catalog, filter):
    with Session(catalog.engine) as session:
        asked = statements(catalog.engine, lambda: count_structures(session, filter))
    steps = sqlite_plans(catalog.engine, asked)
    assert any("facet USING INDEX" in step and "(name=?)" in step for step in steps), steps
    assert not any(word in step for step in steps for word in ("structure", "label", "SCAN facet")), steps


def test_freezing_finds_its_members_by_their_keys(catalog):
    with Session(catalog.engine) as session:
        ids = structure_ids(session, "O")
        asked = statements(catalog.engine, lambda: read_members(session, ids))
    steps = sqlite_plans(catalog.engine, asked)
    assert "SEARCH structure USING INTEGER PRIMARY KEY (rowid=?)" in steps
    assert not any(step.startswith(("SCAN structure", "SCAN material")) for step in steps), steps


@pytest.mark.parametrize(
    ("filter", "index"),
    [
        ("Y", "pk_structure_element"),
        ("gap>=5", "ix_label_band_gap"),
        ("Pm-3m", "ix_structure_space_group_it_number"),
        ("LiFePO4", "ix_structure_chemical_formula_reduced"),
        ('tags HAS "split=train"', "pk_structure_tag"),
    ],
)
def test_postgresql_can_answer_from_the_same_indexes(postgresql_catalog, filter, index):
    """Its planner prefers to scan tables as small as these, so scans are made dear."""
    statement = select_structure_ids(filter, subsets=postgresql_catalog.subsets)
    compiled = statement.compile(dialect=postgresql_catalog.engine.dialect, compile_kwargs={"literal_binds": True})
    with postgresql_catalog.engine.connect() as connection:
        connection.execute(text("SET enable_seqscan = off"))
        steps = [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {compiled}")]
    assert any(index in step for step in steps), steps


def test_postgresql_reads_facets_by_their_names(postgresql_catalog):
    with postgresql_catalog.engine.connect() as connection:
        connection.execute(text("SET enable_seqscan = off"))
        rows = connection.execute(text("EXPLAIN SELECT data FROM facet WHERE name = ANY(ARRAY['ids', 'nsites'])"))
        steps = [row[0] for row in rows]
    assert any("pk_facet" in step for step in steps), steps
