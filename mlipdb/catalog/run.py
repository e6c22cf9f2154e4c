"""Trainings and evaluations."""

from sqlalchemy import ForeignKey, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, json_object, moment, name_text, sha256_hex


class Run(Base):
    """One training or evaluation: what went in, what came out, and where its files are."""

    __tablename__ = "run"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[name_text] = mapped_column(unique=True)
    kind: Mapped[name_text]  # train | evaluate
    state: Mapped[name_text]  # running | finished | failed
    config: Mapped[json_object]
    subset_id: Mapped[int | None] = mapped_column(ForeignKey("subset.id"))
    subset_hash: Mapped[sha256_hex]
    methods: Mapped[json_object]
    parent: Mapped[str | None] = mapped_column(Text)
    metrics: Mapped[json_object]
    versions: Mapped[json_object]
    path: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[moment]
    finished_at: Mapped[moment | None]
