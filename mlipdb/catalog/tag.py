"""Words that a source gives a structure, such as the subset of SPICE or the official split it is in."""

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, BigInt, big_key, long_text, name_text


class Tag(Base):
    """A name and a value that many structures may share: ``subset`` and ``SPICE Dipeptides``."""

    __tablename__ = "tag"
    __table_args__ = (UniqueConstraint("name", "value"),)

    id: Mapped[big_key]
    name: Mapped[name_text]
    value: Mapped[long_text]


class StructureTag(Base):
    """A tag of a structure; clustered by tag, indexed by structure."""

    __tablename__ = "structure_tag"
    __table_args__ = (Index("ix_structure_tag_structure_id", "structure_id"), {"sqlite_with_rowid": False})

    tag_id: Mapped[int] = mapped_column(BigInt, ForeignKey("tag.id"), primary_key=True)
    structure_id: Mapped[int] = mapped_column(BigInt, ForeignKey("structure.id"), primary_key=True)
