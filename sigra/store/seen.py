"""Whether readers are shown what is in the tables, which is what ``verify`` checks."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection

from sigra.store.interrupts import interruptible
from sigra.store.tables import metadata

_MISS = "so readers may miss events"
_MOST = 100
"""Faults at which SQLite's integrity check ends."""
_TABLES = [table.name for table in metadata.sorted_tables]

_FILTERED = """
SELECT relname, relkind NOT IN ('r', 'p') FROM pg_class
WHERE oid IN (to_regclass('sigra_audit_chains'), to_regclass('sigra_audit_entries'),
              to_regclass('sigra_audit_marks'))
AND (relkind NOT IN ('r', 'p') OR row_security_active(oid))
ORDER BY relname
"""
"""What stands in for a table, or of which a policy may keep rows from this role: either can tell a
query of verify's from a reader's."""


def hidden(connection: Connection, *, everything: bool) -> Iterator[str]:
    """Yield why readers may be shown less than there is.

    With ``everything``, SQLite compares its indexes with their tables too, and so reads all of
    them: readers go by an index, and whoever can write the schema can make one that lacks an entry.
    """
    if connection.dialect.name == "postgresql":
        for name, replaced in connection.exec_driver_sql(_FILTERED):
            what = "is no table" if replaced else "has a policy for this role"
            yield f"{name} {what}, {_MISS}"
    elif everything:
        for name in _TABLES:
            with interruptible(connection.connection.driver_connection):
                look = connection.exec_driver_sql(f"PRAGMA integrity_check({name})")
                found = "\n".join(look.scalars()).split("\n")  # it puts several in one text
            for told in found:
                if " index " in told:
                    yield f"an index is not like its table, {_MISS}: {told} (REINDEX)"
            if len(found) >= _MOST:  # of another kind, they keep those of an index from being told
                yield f"{name} has more faults than SQLite tells, {_MISS}: {found[-1]}"
