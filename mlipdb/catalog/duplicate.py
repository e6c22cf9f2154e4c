"""Frames of a source that were left out because another source had them already."""

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, BigInt, long_text


class Duplicate(Base):
    """A frame with the structure and label, by one method, of a structure that an earlier source gave.

    row is its position in its source where official splits count by it.
    """

    __tablename__ = "duplicate"
    __table_args__ = (Index("ix_duplicate_structure_id", "structure_id"), {"sqlite_with_rowid": False})

    source_id: Mapped[int] = mapped_column(ForeignKey("source.id"), primary_key=True)
    structure_id: Mapped[int] = mapped_column(BigInt, ForeignKey("structure.id"), primary_key=True)
    external_id: Mapped[long_text] = mapped_column(primary_key=True)
    row: Mapped[int | None] = mapped_column(BigInt)
