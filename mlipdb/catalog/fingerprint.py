"""What two structures share when they are the same crystal or molecule, whatever their coordinates."""

from sqlalchemy import ForeignKey, Index, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, BigInt, name_text


class FingerprintTool(Base):
    """The tool, its version and its settings: values of one tool can be compared, of two tools not."""

    __tablename__ = "fingerprint_tool"
    __table_args__ = (UniqueConstraint("tool", "version"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    tool: Mapped[name_text]
    version: Mapped[name_text]


class StructureFingerprint(Base):
    """The fingerprint of a structure by one tool."""

    __tablename__ = "structure_fingerprint"
    __table_args__ = (
        Index("ix_structure_fingerprint_value", "value", "tool_id", "structure_id"),
        {"sqlite_with_rowid": False},
    )

    structure_id: Mapped[int] = mapped_column(BigInt, ForeignKey("structure.id"), primary_key=True)
    tool_id: Mapped[int] = mapped_column(ForeignKey("fingerprint_tool.id"), primary_key=True)
    value: Mapped[name_text]
