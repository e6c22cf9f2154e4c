"""Packed columns of each shard that counts are read from; `mlipdb db upgrade` fills them, SQL answers until then."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "facet",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("shard_id", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["shard_id"], ["shard.id"], name="fk_facet_shard_id_shard", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("name", "shard_id", name="pk_facet"),
    )


def downgrade() -> None:
    op.drop_table("facet")
