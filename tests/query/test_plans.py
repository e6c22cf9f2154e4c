"""SQLite answers the everyday filters from indexes; a scan of the structures or labels would take seconds."""

import pytest
from sqlalchemy.dialects import sqlite
from sqlalchemy.orm import Session

from mlipdb.query import select_structure_ids


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
        ("_mlipdb_max_force<0.05", "label USING COVERING INDEX ix_label_max_force (max_force<?)"),
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
