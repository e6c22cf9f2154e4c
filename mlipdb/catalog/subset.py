"""Frozen answers of a query, with the split of each member."""

from sqlalchemy import ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, BigInt, moment, name_text, sha256_hex


class Subset(Base):
    """A named, frozen set of structures. hash is the SHA-256 of the sorted ids' source, external id and content."""

    __tablename__ = "subset"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[name_text] = mapped_column(unique=True)
    filter: Mapped[str] = mapped_column(Text)
    hash: Mapped[sha256_hex]
    size: Mapped[int]
    split_by: Mapped[name_text]  # material | frame
    fractions: Mapped[name_text]  # train/validation/test, such as 90/5/5
    seed: Mapped[int]
    created_at: Mapped[moment]


class SubsetMember(Base):
    """One structure of a subset and the part of the split it is in: train, validation or test."""

    __tablename__ = "subset_member"
    __table_args__ = ({"sqlite_with_rowid": False},)

    subset_id: Mapped[int] = mapped_column(ForeignKey("subset.id", ondelete="CASCADE"), primary_key=True)
    structure_id: Mapped[int] = mapped_column(BigInt, ForeignKey("structure.id"), primary_key=True)
    split: Mapped[str] = mapped_column(String(16))
