"""The sealed files that hold arrays."""

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, big_int, moment, name_text, sha256_hex


class ShardRow(Base):
    """One immutable LMDB file. path is relative to the database directory; keys are structure ids."""

    __tablename__ = "shard"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    kind: Mapped[name_text]  # structures | labels
    path: Mapped[name_text] = mapped_column(unique=True)
    records: Mapped[int]
    bytes: Mapped[big_int]
    sha256: Mapped[sha256_hex]
    format_version: Mapped[int]
    first_structure_id: Mapped[big_int]
    last_structure_id: Mapped[big_int]
    sealed_at: Mapped[moment]
