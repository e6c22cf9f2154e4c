"""Rows for every table, whatever the schema is."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    insert,
    select,
)


def a_row(table):
    """A row with a value in every column."""
    values = {}
    for column in table.columns:
        kind = column.type
        if isinstance(kind, JSON):
            values[column.name] = {"a": 1}
        elif isinstance(kind, DateTime):
            values[column.name] = datetime(2026, 1, 1, tzinfo=UTC)
        elif isinstance(kind, LargeBinary):
            values[column.name] = b"0" * 16
        elif isinstance(kind, Integer | SmallInteger | BigInteger):
            values[column.name] = 1
        elif isinstance(kind, Float):
            values[column.name] = 1.5
        elif isinstance(kind, String):
            values[column.name] = "x"
    return values


@pytest.fixture
def fill_every_table():
    """See fill."""
    return fill


def fill(engine):
    """A row in each table that the database has, whatever its revision; older steps may have left theirs."""
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            if table.name != "alembic_version" and connection.execute(select(table)).first() is None:
                connection.execute(insert(table), a_row(table))
