"""Statements compiled once for a dialect, and the two ways of running them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

from sqlalchemy import (
    BindParameter,
    Connection,
    Dialect,
    Table,
    bindparam,
    insert,
    select,
    update,
)
from sqlalchemy.sql import ClauseElement

from sigra.store.chain import Row
from sigra.store.tables import chains, entries, payloads


class Statement:
    """A statement's text for one dialect, which takes its values as a tuple in a fixed order.

    Compiling one, and running it the usual way, takes longer than SQLite takes for the row.
    """

    __slots__ = ("_names", "_positional", "sql")

    def __init__(self, clause: ClauseElement, names: Sequence[str], dialect: Dialect) -> None:
        compiled: Any = clause.compile(dialect=dialect)
        self.sql = str(compiled)
        self._names = tuple(names)
        self._positional = bool(compiled.positional)
        if self._positional and tuple(compiled.positiontup) != self._names:
            raise AssertionError(f"{self.sql} takes {compiled.positiontup}, not {self._names}")

    def bind(self, row: Row) -> Any:
        """Give one row's values the form that the driver takes."""
        return row if self._positional else dict(zip(self._names, row, strict=True))


class Runner(Protocol):
    """Run statements inside a transaction that somebody else ends."""

    statements: Statements

    def run(self, statement: Statement, *row: Any) -> None:
        """Run a statement that answers nothing."""

    def rows(self, statement: Statement, *row: Any) -> Sequence[Row]:
        """Run a statement and fetch all that it answers."""
        ...

    def run_many(self, statement: Statement, rows: Sequence[Row]) -> None:
        """Run a statement once for each row."""


class CursorRunner:
    """Run them on a driver's own cursor, for the speed of it."""

    def __init__(self, cursor: Any, statements: Statements) -> None:
        self._cursor, self.statements = cursor, statements

    def run(self, statement: Statement, *row: Any) -> None:
        """Run a statement that answers nothing."""
        self._cursor.execute(statement.sql, statement.bind(row))

    def rows(self, statement: Statement, *row: Any) -> Sequence[Row]:
        """Run a statement and fetch all that it answers."""
        found: Sequence[Row] = self._cursor.execute(statement.sql, statement.bind(row)).fetchall()
        return found

    def run_many(self, statement: Statement, rows: Sequence[Row]) -> None:
        """Run a statement once for each row."""
        self._cursor.executemany(statement.sql, [statement.bind(row) for row in rows])


class ConnectionRunner:
    """Run them on SQLAlchemy's connection, which knows then that a transaction is open."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self.statements = connection, statements_of(connection.dialect)

    def run(self, statement: Statement, *row: Any) -> None:
        """Run a statement that answers nothing."""
        self._connection.exec_driver_sql(statement.sql, statement.bind(row))

    def rows(self, statement: Statement, *row: Any) -> Sequence[Row]:
        """Run a statement and fetch all that it answers."""
        found = self._connection.exec_driver_sql(statement.sql, statement.bind(row))
        return [tuple(each) for each in found]

    def run_many(self, statement: Statement, rows: Sequence[Row]) -> None:
        """Run a statement once for each row."""
        self._connection.exec_driver_sql(statement.sql, [statement.bind(row) for row in rows])


class Statements:
    """What writing takes, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        tag: BindParameter[Any] = bindparam("tag")
        # An update, and of a row that stays as it is: on PostgreSQL it locks the row; on SQLite,
        # where the caller began a deferred transaction, it takes the one lock there is.
        self.lock = self._compiled(
            update(chains)
            .where(chains.c.tag == tag)
            .values(sequence=chains.c.sequence)
            .returning(chains.c.id, chains.c.sequence, chains.c.head),
            "tag",
        )
        self.begin_chain = self._compiled(
            _insert(dialect, chains).on_conflict_do_nothing(index_elements=["tag"]),
            "tag", "sequence", "head",
        )  # fmt: skip
        self.move_head = self._compiled(
            update(chains)
            .where(chains.c.id == bindparam("chain"))
            .values(sequence=bindparam("last"), head=bindparam("hash")),
            "last", "hash", "chain",
        )  # fmt: skip
        self.add_entry = self._inserted(entries)
        self.add_payload = self._inserted(payloads)
        self._known: dict[int, Statement] = {}

    def known(self, count: int) -> Statement:
        """Return the statement that finds which of so many event ids there are already."""
        if count not in self._known:
            names = [f"id_{number}" for number in range(count)]
            found = entries.c.event_id.in_([bindparam(name) for name in names])
            self._known[count] = self._compiled(select(entries.c.event_id).where(found), *names)
        return self._known[count]

    def _inserted(self, table: Table) -> Statement:
        names = [column.name for column in table.columns]
        return self._compiled(insert(table).values({n: bindparam(n) for n in names}), *names)

    def _compiled(self, clause: Any, *names: str) -> Statement:
        return Statement(clause, names, self._dialect)


def _insert(dialect: Dialect, table: Table) -> Any:
    if dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as own
    else:
        from sqlalchemy.dialects.sqlite import insert as own  # type: ignore[assignment]
    return own(table).values({c.name: bindparam(c.name) for c in table.columns if c.name != "id"})


@cache
def statements_of(dialect: Dialect) -> Statements:
    """Return a dialect's statements, compiled once."""
    return Statements(dialect)
