"""Which frames of a source are copies of another source's, so that leakage between the two can be seen."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "duplicate",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("structure_id", big, nullable=False),
        sa.Column("external_id", sa.Text().with_variant(sa.String(length=255), "sqlite"), nullable=False),
        sa.Column("row", big, nullable=True),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name="fk_duplicate_source_id_source"),
        sa.ForeignKeyConstraint(["structure_id"], ["structure.id"], name="fk_duplicate_structure_id_structure"),
        sa.PrimaryKeyConstraint("source_id", "structure_id", "external_id", name="pk_duplicate"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_duplicate_structure_id", "duplicate", ["structure_id"], unique=False)


def downgrade() -> None:
    op.drop_table("duplicate")
