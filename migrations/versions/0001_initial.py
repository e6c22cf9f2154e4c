"""Every table of the first release.

Migrations never import the models: they say what the schema was at the time.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "catalog_info",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uuid", sa.String(length=255), nullable=False),
        sa.Column("created_with", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_info")),
    )
    op.create_table(
        "material",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_material")),
        sa.UniqueConstraint("key", name=op.f("uq_material_key")),
    )
    op.create_table(
        "method",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("code", sa.String(), nullable=True),
        sa.Column("functional", sa.String(), nullable=True),
        sa.Column("weights_sha256", sa.String(length=64), nullable=True),
        sa.Column("package", sa.String(), nullable=True),
        sa.Column("package_version", sa.String(), nullable=True),
        sa.Column("dtype", sa.String(), nullable=True),
        sa.Column("e0_convention", sa.String(), nullable=True),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_method")),
        sa.UniqueConstraint("hash", name=op.f("uq_method_hash")),
    )
    with op.batch_alter_table("method", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_method_name"), ["name"], unique=False)

    op.create_table(
        "shard",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("format_version", sa.Integer(), nullable=False),
        sa.Column("first_structure_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("last_structure_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shard")),
        sa.UniqueConstraint("path", name=op.f("uq_shard_path")),
    )
    op.create_table(
        "source",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("reader", sa.String(length=255), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("licence", sa.Text(), nullable=True),
        sa.Column("citation", sa.Text(), nullable=True),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("quarantined", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_source")),
        sa.UniqueConstraint("name", name=op.f("uq_source_name")),
    )
    op.create_table(
        "subset",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("split_by", sa.String(length=255), nullable=False),
        sa.Column("fractions", sa.String(length=255), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subset")),
        sa.UniqueConstraint("name", name=op.f("uq_subset_name")),
    )
    op.create_table(
        "symmetry_setting",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tool", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column("symprec", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_symmetry_setting")),
        sa.UniqueConstraint("tool", "version", "symprec", name=op.f("uq_symmetry_setting_tool_version_symprec")),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("location", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_quarantine_source_id_source")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
        sa.UniqueConstraint("source_id", "key", "location", name=op.f("uq_quarantine_source_id_key_location")),
    )
    op.create_table(
        "run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=255), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("subset_id", sa.Integer(), nullable=True),
        sa.Column("subset_hash", sa.String(length=64), nullable=False),
        sa.Column("methods", sa.JSON(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["subset_id"], ["subset.id"], name=op.f("fk_run_subset_id_subset")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        sa.UniqueConstraint("name", name=op.f("uq_run_name")),
    )
    op.create_table(
        "structure",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("material_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("external_id", sa.String(length=255), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(length=16), nullable=False),
        sa.Column("nsites", sa.Integer(), nullable=False),
        sa.Column("nelements", sa.SmallInteger(), nullable=False),
        sa.Column("chemical_formula_reduced", sa.String(length=255), nullable=False),
        sa.Column("chemical_system", sa.String(length=255), nullable=False),
        sa.Column("space_group_it_number", sa.SmallInteger(), nullable=True),
        sa.Column("space_group_symbol", sa.String(length=16), nullable=True),
        sa.Column("symmetry_setting_id", sa.Integer(), nullable=True),
        sa.Column("volume", sa.Double(), nullable=True),
        sa.Column("pbc", sa.SmallInteger(), nullable=False),
        sa.Column("charge", sa.Double(), nullable=True),
        sa.Column("spin_multiplicity", sa.Integer(), nullable=True),
        sa.Column("shard_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["material_id"], ["material.id"], name=op.f("fk_structure_material_id_material")),
        sa.ForeignKeyConstraint(["shard_id"], ["shard.id"], name=op.f("fk_structure_shard_id_shard")),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("fk_structure_source_id_source")),
        sa.ForeignKeyConstraint(
            ["symmetry_setting_id"],
            ["symmetry_setting.id"],
            name=op.f("fk_structure_symmetry_setting_id_symmetry_setting"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_structure")),
        sa.UniqueConstraint("source_id", "external_id", name=op.f("uq_structure_source_id_external_id")),
    )
    with op.batch_alter_table("structure", schema=None) as batch_op:
        batch_op.create_index("ix_structure_chemical_formula_reduced", ["chemical_formula_reduced"], unique=False)
        batch_op.create_index("ix_structure_chemical_system", ["chemical_system"], unique=False)
        batch_op.create_index("ix_structure_content_hash", ["content_hash"], unique=False)
        batch_op.create_index("ix_structure_material_id", ["material_id"], unique=False)
        batch_op.create_index("ix_structure_space_group_it_number", ["space_group_it_number"], unique=False)

    op.create_table(
        "label",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("structure_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("method_id", sa.Integer(), nullable=False),
        sa.Column("part", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("energy_uncorrected", sa.Double(), nullable=True),
        sa.Column("energy_corrected", sa.Double(), nullable=True),
        sa.Column("free_energy", sa.Double(), nullable=True),
        sa.Column("energy_zero", sa.Double(), nullable=True),
        sa.Column("band_gap", sa.Double(), nullable=True),
        sa.Column("max_force", sa.Double(), nullable=True),
        sa.Column("arrays", sa.String(length=128), nullable=False),
        sa.Column("hessian_rows", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(length=16), nullable=True),
        sa.Column("shard_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["method_id"], ["method.id"], name=op.f("fk_label_method_id_method")),
        sa.ForeignKeyConstraint(["shard_id"], ["shard.id"], name=op.f("fk_label_shard_id_shard")),
        sa.ForeignKeyConstraint(["structure_id"], ["structure.id"], name=op.f("fk_label_structure_id_structure")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label")),
        sa.UniqueConstraint("structure_id", "method_id", "part", name=op.f("uq_label_structure_id_method_id_part")),
    )
    with op.batch_alter_table("label", schema=None) as batch_op:
        batch_op.create_index("ix_label_band_gap", ["band_gap", "method_id", "structure_id"], unique=False)
        batch_op.create_index("ix_label_max_force", ["max_force", "method_id", "structure_id"], unique=False)
        batch_op.create_index("ix_label_method_id_structure_id", ["method_id", "structure_id"], unique=False)

    op.create_table(
        "structure_element",
        sa.Column("atomic_number", sa.SmallInteger(), nullable=False),
        sa.Column("structure_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["structure_id"], ["structure.id"], name=op.f("fk_structure_element_structure_id_structure")
        ),
        sa.PrimaryKeyConstraint("atomic_number", "structure_id", name=op.f("pk_structure_element")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("structure_element", schema=None) as batch_op:
        batch_op.create_index(
            "ix_structure_element_structure_id_atomic_number", ["structure_id", "atomic_number"], unique=False
        )

    op.create_table(
        "subset_member",
        sa.Column("subset_id", sa.Integer(), nullable=False),
        sa.Column("structure_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["structure_id"], ["structure.id"], name=op.f("fk_subset_member_structure_id_structure")
        ),
        sa.ForeignKeyConstraint(
            ["subset_id"], ["subset.id"], name=op.f("fk_subset_member_subset_id_subset"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("subset_id", "structure_id", name=op.f("pk_subset_member")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("subset_member")
    with op.batch_alter_table("structure_element", schema=None) as batch_op:
        batch_op.drop_index("ix_structure_element_structure_id_atomic_number")

    op.drop_table("structure_element")
    with op.batch_alter_table("label", schema=None) as batch_op:
        batch_op.drop_index("ix_label_method_id_structure_id")
        batch_op.drop_index("ix_label_max_force")
        batch_op.drop_index("ix_label_band_gap")

    op.drop_table("label")
    with op.batch_alter_table("structure", schema=None) as batch_op:
        batch_op.drop_index("ix_structure_space_group_it_number")
        batch_op.drop_index("ix_structure_material_id")
        batch_op.drop_index("ix_structure_content_hash")
        batch_op.drop_index("ix_structure_chemical_system")
        batch_op.drop_index("ix_structure_chemical_formula_reduced")

    op.drop_table("structure")
    op.drop_table("run")
    op.drop_table("quarantine")
    op.drop_table("symmetry_setting")
    op.drop_table("subset")
    op.drop_table("source")
    op.drop_table("shard")
    with op.batch_alter_table("method", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_method_name"))

    op.drop_table("method")
    op.drop_table("material")
    op.drop_table("catalog_info")
