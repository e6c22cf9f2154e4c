"""Alembic migrations of the catalog, installed as mlipdb.migrations."""
