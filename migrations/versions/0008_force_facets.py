"""Largest forces are facets, which `mlipdb db upgrade` fills again; their index, which each batch touched, goes."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_label_max_force", table_name="label")
    op.execute("DELETE FROM facet")


def downgrade() -> None:
    op.create_index("ix_label_max_force", "label", ["max_force", "method_id", "structure_id"])
    op.execute("DELETE FROM facet")
