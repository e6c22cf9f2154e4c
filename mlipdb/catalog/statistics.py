"""Statistics of frozen subsets, kept so that they are worked out once."""

from sqlalchemy import ForeignKey, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, json_object, moment, name_text, sha256_hex


class SubsetStatistics(Base):
    """E0s, mean, scale and neighbours of a subset's content, by its hash; key names the settings and the version."""

    __tablename__ = "subset_statistics"
    __table_args__ = (UniqueConstraint("subset_hash", "method_id", "key"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    subset_hash: Mapped[sha256_hex]
    method_id: Mapped[int] = mapped_column(ForeignKey("method.id"))
    key: Mapped[name_text]  # part of the split, cutoff, kind of E0s
    results: Mapped[json_object]
    created_at: Mapped[moment]
