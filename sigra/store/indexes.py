"""Indexes and constraints of the store's tables that somebody dropped, and how to make each."""

from __future__ import annotations

from sqlalchemy import Connection, Executable, UniqueConstraint, inspect, text
from sqlalchemy.schema import CreateIndex

from sigra.store.tables import metadata

Statements = dict[str, Executable]
"""What makes an index or a constraint, by its name."""


def missing_indexes(connection: Connection) -> Statements:
    """Return those indexes of the newest version that are not there."""
    look = inspect(connection)
    return {
        str(index.name): CreateIndex(index)
        for table in metadata.sorted_tables
        for index in sorted(table.indexes, key=lambda index: str(index.name))
        if index.name not in {found["name"] for found in look.get_indexes(table.name)}
        # The one that is unique is for SQLite alone.
        and not (index.unique and connection.dialect.name == "postgresql")
    }


def missing_constraints(connection: Connection) -> Statements:
    """Return those primary keys and unique constraints that are not there; SQLite drops none."""
    missing: Statements = {}
    if connection.dialect.name != "postgresql":
        return missing
    look = inspect(connection)
    for table in metadata.sorted_tables:
        unique = {tuple(found["column_names"]) for found in look.get_unique_constraints(table.name)}
        rules = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
        names = {tuple(each.columns.keys()) for each in rules} - unique
        wanted = [(f"{'_'.join(each)}_key", "UNIQUE", each) for each in names]
        if not look.get_pk_constraint(table.name)["constrained_columns"]:
            wanted.append(("pkey", "PRIMARY KEY", tuple(table.primary_key.columns.keys())))
        for ending, kind, columns in sorted(wanted):
            name = f"{table.name}_{ending}"  # as PostgreSQL itself calls it
            rule = f"ADD CONSTRAINT {name} {kind} ({', '.join(columns)})"
            missing[name] = text(f"ALTER TABLE {table.name} {rule}")
    return missing
