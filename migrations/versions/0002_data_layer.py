"""Tags and rows of a source, fingerprints, findings of the checks at ingest, and statistics of subsets."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("structure", sa.Column("source_row", BIG, nullable=True))
    _make_tags()
    _make_fingerprints()
    op.create_table(
        "finding",
        sa.Column("id", BIG, nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("check_name", sa.String(length=255), nullable=False),
        sa.Column("severity", sa.String(length=255), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name="fk_finding_source_id_source"),
        sa.PrimaryKeyConstraint("id", name="pk_finding"),
        sa.UniqueConstraint("source_id", "check_name", name="uq_finding_source_id_check_name"),
    )
    op.create_table(
        "subset_statistics",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("subset_hash", sa.String(length=64), nullable=False),
        sa.Column("method_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("results", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["method_id"], ["method.id"], name="fk_subset_statistics_method_id_method"),
        sa.PrimaryKeyConstraint("id", name="pk_subset_statistics"),
        sa.UniqueConstraint("subset_hash", "method_id", "key", name="uq_subset_statistics_subset_hash_method_id_key"),
    )


def _make_tags() -> None:
    op.create_table(
        "tag",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tag"),
        sa.UniqueConstraint("name", "value", name="uq_tag_name_value"),
    )
    op.create_table(
        "structure_tag",
        sa.Column("tag_id", BIG, nullable=False),
        sa.Column("structure_id", BIG, nullable=False),
        sa.ForeignKeyConstraint(["structure_id"], ["structure.id"], name="fk_structure_tag_structure_id_structure"),
        sa.ForeignKeyConstraint(["tag_id"], ["tag.id"], name="fk_structure_tag_tag_id_tag"),
        sa.PrimaryKeyConstraint("tag_id", "structure_id", name="pk_structure_tag"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_structure_tag_structure_id", "structure_tag", ["structure_id"])


def _make_fingerprints() -> None:
    op.create_table(
        "fingerprint_tool",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tool", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fingerprint_tool"),
        sa.UniqueConstraint("tool", "version", name="uq_fingerprint_tool_tool_version"),
    )
    op.create_table(
        "structure_fingerprint",
        sa.Column("structure_id", BIG, nullable=False),
        sa.Column("tool_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["structure_id"], ["structure.id"], name="fk_structure_fingerprint_structure_id_structure"
        ),
        sa.ForeignKeyConstraint(
            ["tool_id"], ["fingerprint_tool.id"], name="fk_structure_fingerprint_tool_id_fingerprint_tool"
        ),
        sa.PrimaryKeyConstraint("structure_id", "tool_id", name="pk_structure_fingerprint"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_structure_fingerprint_value", "structure_fingerprint", ["value", "tool_id", "structure_id"])


def downgrade() -> None:
    for table in ("subset_statistics", "finding", "structure_fingerprint", "fingerprint_tool", "structure_tag", "tag"):
        op.drop_table(table)
    op.drop_column("structure", "source_row")
