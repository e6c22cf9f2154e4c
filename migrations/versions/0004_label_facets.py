"""More facets, which `mlipdb db upgrade` fills again: atoms and every label; failed labels are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM facet")
    failed = sa.text("shard_id IS NULL")
    op.create_index(
        "ix_label_failed", "label", ["method_id", "structure_id"], sqlite_where=failed, postgresql_where=failed
    )


def downgrade() -> None:
    op.drop_index("ix_label_failed", table_name="label")
    op.execute("DELETE FROM facet")
