"""The row that ties a catalog to its shards."""

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from mlipdb.catalog.base import Base, moment, name_text


class CatalogInfo(Base):
    """One row: the UUID that stands in the catalog and in every shard."""

    __tablename__ = "catalog_info"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, default=1)
    uuid: Mapped[name_text]
    created_with: Mapped[name_text]
    created_at: Mapped[moment]
