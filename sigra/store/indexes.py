"""Indexes of the store's tables that somebody dropped."""

from __future__ import annotations

from sqlalchemy import Connection, inspect
from sqlalchemy.schema import CreateIndex, ExecutableDDLElement

from sigra.store.tables import metadata


def missing_indexes(connection: Connection) -> dict[str, ExecutableDDLElement]:
    """Return those indexes of the newest version that are not there, and how to make each."""
    look = inspect(connection)
    return {
        str(index.name): CreateIndex(index)
        for table in metadata.sorted_tables
        for index in sorted(table.indexes, key=lambda index: str(index.name))
        if index.name not in {found["name"] for found in look.get_indexes(table.name)}
        # The one that is unique is for SQLite alone.
        and not (index.unique and connection.dialect.name == "postgresql")
    }
