"""Where structures came from, and what could not be taken."""

from sqlalchemy import ForeignKey, Integer, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, big_key, json_object, long_text, moment, name_text, sha256_hex


class Source(Base):
    """One data set as it was ingested; counts are of the rows it has in the catalog."""

    __tablename__ = "source"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[name_text] = mapped_column(unique=True)
    version: Mapped[str | None]
    reader: Mapped[name_text]
    uri: Mapped[str] = mapped_column(Text)
    sha256: Mapped[sha256_hex | None]
    licence: Mapped[str | None] = mapped_column(Text)
    citation: Mapped[str | None] = mapped_column(Text)
    options: Mapped[json_object]
    taken: Mapped[int] = mapped_column(default=0)
    duplicates: Mapped[int] = mapped_column(default=0)
    quarantined: Mapped[int] = mapped_column(default=0)
    state: Mapped[name_text]  # ingesting | complete | stopped
    created_at: Mapped[moment]


class Quarantine(Base):
    """A record that could not be taken: where it is and why."""

    __tablename__ = "quarantine"
    __table_args__ = (UniqueConstraint("source_id", "key", "location"),)

    id: Mapped[big_key]
    source_id: Mapped[int] = mapped_column(ForeignKey("source.id"))
    key: Mapped[long_text]
    location: Mapped[long_text]
    reason: Mapped[str] = mapped_column(Text)
