"""How far methods are apart on structures that all of them labelled; every number follows from their labels."""

from sqlalchemy import ForeignKey, Index, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, BigInt, digest16, json_object, moment, name_text


class Disagreement(Base):
    """Methods that are compared on the structures of a filter, under a name that stands in field names.

    constants are what was taken off the total energies of each method: eV by method id, then by element.
    """

    __tablename__ = "disagreement"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[name_text] = mapped_column(unique=True)
    filter: Mapped[str] = mapped_column(Text)
    constants: Mapped[json_object]
    updated_at: Mapped[moment]


class DisagreementMethod(Base):
    """One of the methods that are compared."""

    __tablename__ = "disagreement_method"

    disagreement_id: Mapped[int] = mapped_column(ForeignKey("disagreement.id", ondelete="CASCADE"), primary_key=True)
    method_id: Mapped[int] = mapped_column(ForeignKey("method.id"), primary_key=True)
    place: Mapped[int] = mapped_column(SmallInteger)


class StructureDisagreement(Base):
    """The numbers of one structure: forces in eV/Å, energy in eV/atom; NULL where the labels do not give one.

    labels is made of the hashes of the labels that they were worked out from.
    """

    __tablename__ = "structure_disagreement"
    __table_args__ = (
        # with the structure, so that a query reads the index alone
        Index("ix_structure_disagreement_forces", "disagreement_id", "forces", "structure_id"),
        Index("ix_structure_disagreement_energy", "disagreement_id", "energy", "structure_id"),
        {"sqlite_with_rowid": False},
    )

    disagreement_id: Mapped[int] = mapped_column(ForeignKey("disagreement.id", ondelete="CASCADE"), primary_key=True)
    structure_id: Mapped[int] = mapped_column(BigInt, ForeignKey("structure.id"), primary_key=True)
    forces: Mapped[float | None]
    energy: Mapped[float | None]
    labels: Mapped[digest16]
