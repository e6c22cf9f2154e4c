"""Which method gave which quantities for a structure."""

from sqlalchemy import ForeignKey, Index, SmallInteger, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, BigInt, big_key, digest16, name_text

_NO_SHARD = text("shard_id IS NULL")


class LabelRow(Base):
    """One part of the label of a structure by a method.

    part 0 holds energies, forces, stress and the like; parts 1, 2, … hold further Hessian rows, added later without
    touching what is there. Energies are in eV as in mlipdb.labels.Label, max_force eV/Å. arrays names the arrays in the
    shard record, separated by spaces. status is ``done`` or ``failed`` (then shard_id is NULL and reason says why).
    """

    __tablename__ = "label"
    __table_args__ = (
        UniqueConstraint("structure_id", "method_id", "part"),
        Index("ix_label_method_id_structure_id", "method_id", "structure_id"),
        # with what a query needs beside the value, so that it reads the index alone
        Index("ix_label_band_gap", "band_gap", "method_id", "structure_id"),
        # failed ones are few, and no facet knows them
        Index("ix_label_failed", "method_id", "structure_id", sqlite_where=_NO_SHARD, postgresql_where=_NO_SHARD),
    )

    id: Mapped[big_key]
    structure_id: Mapped[int] = mapped_column(BigInt, ForeignKey("structure.id"))
    method_id: Mapped[int] = mapped_column(ForeignKey("method.id"))
    part: Mapped[int] = mapped_column(SmallInteger, default=0)
    status: Mapped[name_text]
    reason: Mapped[str | None] = mapped_column(Text)
    energy_uncorrected: Mapped[float | None]
    energy_corrected: Mapped[float | None]
    free_energy: Mapped[float | None]
    energy_zero: Mapped[float | None]
    band_gap: Mapped[float | None]
    max_force: Mapped[float | None]
    arrays: Mapped[str] = mapped_column(String(128))
    hessian_rows: Mapped[int] = mapped_column(default=0)
    content_hash: Mapped[digest16 | None]
    shard_id: Mapped[int | None] = mapped_column(ForeignKey("shard.id"))
