"""How far methods are apart on a structure, a column that filters ask for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "disagreement",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("constants", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_disagreement"),
        sa.UniqueConstraint("name", name="uq_disagreement_name"),
    )
    _add_methods()
    _add_structures()


def _add_methods() -> None:
    op.create_table(
        "disagreement_method",
        sa.Column("disagreement_id", sa.Integer(), nullable=False),
        sa.Column("method_id", sa.Integer(), nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["disagreement_id"],
            ["disagreement.id"],
            name="fk_disagreement_method_disagreement_id_disagreement",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["method_id"], ["method.id"], name="fk_disagreement_method_method_id_method"),
        sa.PrimaryKeyConstraint("disagreement_id", "method_id", name="pk_disagreement_method"),
    )


def _add_structures() -> None:
    table = "structure_disagreement"
    op.create_table(
        table,
        sa.Column("disagreement_id", sa.Integer(), nullable=False),
        sa.Column("structure_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("forces", sa.Double(), nullable=True),
        sa.Column("energy", sa.Double(), nullable=True),
        sa.Column("labels", sa.LargeBinary(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["disagreement_id"],
            ["disagreement.id"],
            name="fk_structure_disagreement_disagreement_id_disagreement",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["structure_id"], ["structure.id"], name="fk_structure_disagreement_structure_id_structure"
        ),
        sa.PrimaryKeyConstraint("disagreement_id", "structure_id", name="pk_structure_disagreement"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_structure_disagreement_forces", table, ["disagreement_id", "forces", "structure_id"], unique=False
    )
    op.create_index(
        "ix_structure_disagreement_energy", table, ["disagreement_id", "energy", "structure_id"], unique=False
    )


def downgrade() -> None:
    op.drop_table("structure_disagreement")
    op.drop_table("disagreement_method")
    op.drop_table("disagreement")
