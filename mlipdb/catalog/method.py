"""Who made a label."""

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, json_object, name_text, sha256_hex


class MethodRow(Base):
    """A level of theory or a teacher, unique by the hash of everything that distinguishes it."""

    __tablename__ = "method"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    hash: Mapped[sha256_hex] = mapped_column(unique=True)
    kind: Mapped[name_text]  # dft | teacher
    name: Mapped[name_text] = mapped_column(index=True)
    code: Mapped[str | None]
    functional: Mapped[str | None]
    weights_sha256: Mapped[sha256_hex | None]
    package: Mapped[str | None]
    package_version: Mapped[str | None]
    dtype: Mapped[str | None]
    e0_convention: Mapped[str | None]
    settings: Mapped[json_object]
