"""What the checks at ingest found odd in a source."""

from sqlalchemy import ForeignKey, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, big_key, json_object, moment, name_text


class FindingRow(Base):
    """One finding of one check, such as a stress of the wrong sign; details hold the numbers behind the message."""

    __tablename__ = "finding"
    __table_args__ = (UniqueConstraint("source_id", "check_name"),)

    id: Mapped[big_key]
    source_id: Mapped[int] = mapped_column(ForeignKey("source.id"))
    check_name: Mapped[name_text]
    severity: Mapped[name_text]  # error | warning | note
    message: Mapped[str] = mapped_column(Text)
    details: Mapped[json_object]
    created_at: Mapped[moment]
