"""The sealed files that hold arrays."""

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, big_int, moment, name_text, sha256_hex

DROPPED = "dropped"  # kind of a shard whose labels were dropped: no label names it, and gc removes its file


class ShardRow(Base):
    """One immutable LMDB file. path is relative to the database directory; keys are structure ids.

    The row of a dropped shard stays, so that its number is never that of another file, which a reader that holds the
    old one open would not notice.
    """

    __tablename__ = "shard"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    kind: Mapped[name_text]  # structures | labels | dropped
    path: Mapped[name_text] = mapped_column(unique=True)
    records: Mapped[int]
    bytes: Mapped[big_int]
    sha256: Mapped[sha256_hex]
    format_version: Mapped[int]
    first_structure_id: Mapped[big_int]
    last_structure_id: Mapped[big_int]
    sealed_at: Mapped[moment]
