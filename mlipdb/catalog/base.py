"""The declarative base: constraint names, column types that mean the same in SQLite and PostgreSQL."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, Double, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, mapped_column

# SQLite gives rowids only to INTEGER PRIMARY KEY, so a big integer key is spelled INTEGER there (also 64 bits).
BigInt = BigInteger().with_variant(Integer(), "sqlite")

big_key = Annotated[int, mapped_column(BigInt, primary_key=True)]
big_int = Annotated[int, mapped_column(BigInt)]
name_text = Annotated[str, mapped_column(String(255))]
# What files say is as long as they like. SQLite holds no text to its length, so its tables need no other type.
long_text = Annotated[str, mapped_column(Text().with_variant(String(255), "sqlite"))]
digest16 = Annotated[bytes, mapped_column(LargeBinary(16))]
sha256_hex = Annotated[str, mapped_column(String(64))]
moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
json_object = Annotated[dict[str, Any], mapped_column(JSON)]


class Base(DeclarativeBase):
    """Base of every table."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Double()}
    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
