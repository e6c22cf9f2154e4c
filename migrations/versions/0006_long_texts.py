"""Texts of files, such as the SMILES of a molecule, of any length; SQLite never held them to one."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = (
    ("material", "key"),
    ("quarantine", "key"),
    ("quarantine", "location"),
    ("structure", "external_id"),
    ("tag", "value"),
)


def upgrade() -> None:
    _set_type(sa.Text())


def downgrade() -> None:
    _set_type(sa.String(length=255))


def _set_type(kind: sa.String) -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table, column in COLUMNS:
            op.alter_column(table, column, type_=kind, existing_nullable=False)
