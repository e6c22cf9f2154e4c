"""What the structures of a shard have in one respect, packed so that a count reads it at once."""

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base


class Facet(Base):
    """One column of one shard: which rows have an element, or the value of each row; see facets.py for the names.

    Everything in it follows from the other tables. A shard without its facet ``ids`` has none yet.
    """

    __tablename__ = "facet"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    shard_id: Mapped[int] = mapped_column(ForeignKey("shard.id", ondelete="CASCADE"), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)
