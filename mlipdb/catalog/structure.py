"""Structures, what they are made of, and the material that frames belong to."""

from sqlalchemy import ForeignKey, Index, Integer, SmallInteger, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, BigInt, big_key, digest16, long_text, name_text


class Material(Base):
    """What frames belong together, such as ``mp-1234``: the unit of every split."""

    __tablename__ = "material"

    id: Mapped[big_key]
    key: Mapped[long_text] = mapped_column(unique=True)


class SymmetrySetting(Base):
    """The tool, its version and the tolerance that found a space group."""

    __tablename__ = "symmetry_setting"
    __table_args__ = (UniqueConstraint("tool", "version", "symprec"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    tool: Mapped[name_text]
    version: Mapped[name_text]
    symprec: Mapped[float]  # Å


class StructureRow(Base):
    """What can be asked about a structure; its arrays are in the shard under its id.

    space_group_it_number is NULL for a structure that is not periodic in three directions or whose symmetry was not
    searched; symmetry_setting_id tells the two apart. source_row is the record's position in its source where official
    splits count by it. volume is in Å³. pbc is a bit mask (1, 2, 4 for the axes).
    """

    __tablename__ = "structure"
    __table_args__ = (
        UniqueConstraint("source_id", "external_id"),
        Index("ix_structure_space_group_it_number", "space_group_it_number"),
        Index("ix_structure_chemical_system", "chemical_system"),
        Index("ix_structure_chemical_formula_reduced", "chemical_formula_reduced"),
        Index("ix_structure_content_hash", "content_hash"),
        Index("ix_structure_material_id", "material_id"),
    )

    id: Mapped[big_key]
    source_id: Mapped[int] = mapped_column(ForeignKey("source.id"))
    material_id: Mapped[int] = mapped_column(BigInt, ForeignKey("material.id"))
    external_id: Mapped[long_text]
    source_row: Mapped[int | None] = mapped_column(BigInt)
    content_hash: Mapped[digest16]
    nsites: Mapped[int]
    nelements: Mapped[int] = mapped_column(SmallInteger)
    chemical_formula_reduced: Mapped[name_text]
    chemical_system: Mapped[name_text]
    space_group_it_number: Mapped[int | None] = mapped_column(SmallInteger)
    space_group_symbol: Mapped[str | None] = mapped_column(String(16))
    symmetry_setting_id: Mapped[int | None] = mapped_column(ForeignKey("symmetry_setting.id"))
    volume: Mapped[float | None]
    pbc: Mapped[int] = mapped_column(SmallInteger)
    charge: Mapped[float | None]
    spin_multiplicity: Mapped[int | None]
    shard_id: Mapped[int] = mapped_column(ForeignKey("shard.id"))


class StructureElement(Base):
    """How many atoms of an element a structure has; clustered by element, indexed by structure."""

    __tablename__ = "structure_element"
    __table_args__ = (
        Index("ix_structure_element_structure_id_atomic_number", "structure_id", "atomic_number"),
        {"sqlite_with_rowid": False},
    )

    atomic_number: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    structure_id: Mapped[int] = mapped_column(BigInt, ForeignKey("structure.id"), primary_key=True)
    count: Mapped[int]
