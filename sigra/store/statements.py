"""Statements compiled once for a dialect, and the two ways of running them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import chain
from typing import Any, Protocol

from sqlalchemy import (
    Connection,
    Dialect,
    Insert,
    Table,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    union_all,
    update,
)
from sqlalchemy.sql import ClauseElement

from sigra.store.chain import Row
from sigra.store.tables import chains, entries, marks

_TOGETHER = 50
"""How many rows SQLite is given in one statement; more would save little."""


class Statement:
    """A statement compiled for one dialect; ``names`` is the order of its values.

    To compile it each time, and run it the usual way, takes longer than SQLite takes for the row.
    ``together``, if not None, is the same statement for ``_TOGETHER`` rows.
    """

    __slots__ = ("_positional", "names", "sql", "together")

    def __init__(
        self,
        dialect: Dialect,
        clause: ClauseElement,
        *names: str,
        together: Statement | None = None,
    ) -> None:
        compiled: Any = clause.compile(dialect=dialect)
        self.sql = str(compiled)
        self.names, self.together = names, together
        self._positional = bool(compiled.positional)
        if self._positional and tuple(compiled.positiontup) != self.names:
            raise AssertionError(f"{self.sql} takes {compiled.positiontup}, not {self.names}")

    def bind(self, row: Row) -> Any:
        """Return one row's values in the form that the driver takes."""
        return row if self._positional else dict(zip(self.names, row, strict=True))

    def bind_many(self, values: Sequence[Any]) -> list[Any]:
        """Do the same with many rows, whose values are in one flat list."""
        width = len(self.names)
        starts = range(0, len(values), width)
        return [self.bind(tuple(values[start : start + width])) for start in starts]


class Runner(Protocol):
    """Run statements inside a transaction that somebody else ends."""

    statements: Statements
    lock: Statement

    def run(self, statement: Statement, *row: Any) -> int:
        """Run a statement that returns no rows; return how many rows it changed."""
        ...

    def rows(self, statement: Statement, *row: Any) -> Sequence[Row]:
        """Run a statement and return its rows."""
        ...

    def run_many(self, statement: Statement, values: Sequence[Any]) -> int:
        """Run a statement for many rows, whose values are in one flat list.

        Returns how many rows it changed, or another number where the driver does not tell.
        """
        ...


class CursorRunner:
    """Run statements on a cursor of SQLite's own driver, which is faster.

    It is for a transaction that holds the lock already, and that ends with the first failure.
    """

    def __init__(self, cursor: Any, statements: Statements) -> None:
        self._cursor, self.statements, self.lock = cursor, statements, statements.find

    def run(self, statement: Statement, *row: Any) -> int:
        """Run a statement that returns no rows; return how many rows it changed."""
        changed: int = self._cursor.execute(statement.sql, row).rowcount
        return changed

    def rows(self, statement: Statement, *row: Any) -> Sequence[Row]:
        """Run a statement and return its rows."""
        found: Sequence[Row] = self._cursor.execute(statement.sql, row).fetchall()
        return found

    def run_many(self, statement: Statement, values: Sequence[Any]) -> int:
        """Run a statement for many rows, whose values are in one flat list."""
        done = changed = 0
        if statement.together is not None:
            size = len(statement.together.names)
            done = len(values) - len(values) % size
            for start in range(0, done, size):
                some = values[start : start + size]
                changed += self._cursor.execute(statement.together.sql, some).rowcount
        rest = statement.bind_many(values[done:])
        if rest:
            changed += self._cursor.executemany(statement.sql, rest).rowcount
        return changed


class ConnectionRunner:
    """Run statements on SQLAlchemy's connection, which then knows that a transaction is open."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self.statements = connection, statements_of(connection.dialect)
        self.lock = self.statements.lock

    def run(self, statement: Statement, *row: Any) -> int:
        """Run a statement that returns no rows; return how many rows it changed."""
        return self._connection.exec_driver_sql(statement.sql, statement.bind(row)).rowcount

    def rows(self, statement: Statement, *row: Any) -> Sequence[Row]:
        """Run a statement and return its rows."""
        found = self._connection.exec_driver_sql(statement.sql, statement.bind(row))
        return [tuple(each) for each in found]

    def run_many(self, statement: Statement, values: Sequence[Any]) -> int:
        """Run a statement for many rows, whose values are in one flat list."""
        rows = statement.bind_many(values)
        return self._connection.exec_driver_sql(statement.sql, rows).rowcount


class Statements:
    """The statements that writing needs, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        # An update that changes nothing: on PostgreSQL it locks the row; on SQLite, where the
        # caller began a deferred transaction, it takes the one lock there is.
        end = (chains.c.id, chains.c.sequence, chains.c.head)
        named = chains.c.tag == bindparam("name")
        lock = update(chains).where(named).values(sequence=chains.c.sequence).returning(*end)
        begin = _dialect_insert(dialect)(chains).on_conflict_do_nothing(index_elements=["tag"])
        if dialect.name == "sqlite":
            begin = begin.values(id=_unused_id())
        move = (
            update(chains)
            .where(chains.c.id == bindparam("chain"))
            .values(sequence=bindparam("last"), head=bindparam("hash"))
        )
        new = _dialect_insert(dialect)(entries).on_conflict_do_nothing(index_elements=["event_id"])
        self.lock = Statement(dialect, lock, "name")
        self.find = Statement(dialect, select(*end).where(named), "name")
        self.begin_chain = _inserted(dialect, begin, "tag", "sequence", "head")
        self.move_head = Statement(dialect, move, "last", "hash", "chain")
        self.add_new_entry = _inserted(dialect, new, *entries.columns.keys())
        self.add_entry = _added(dialect, entries)
        # Few sizes, so that few statements are compiled: a list is filled up with its last id.
        self.known = {size: _known(dialect, size) for size in (8, 64, 512)}


def _unused_id() -> Any:
    """Return the next id for a chain that no row names, not even entries of a removed chain.

    SQLite by itself would use the highest id again once its row is gone.
    """
    columns = (chains.c.id, entries.c.chain, marks.c.chain)
    highest = union_all(*(select(func.max(column).label("number")) for column in columns))
    found = func.coalesce(func.max(highest.subquery().c.number), literal_column("0"))
    return select(found + literal_column("1")).scalar_subquery()


def _inserted(dialect: Dialect, clause: Insert, *names: str) -> Statement:
    return Statement(dialect, clause.values({name: bindparam(name) for name in names}), *names)


def _added(dialect: Dialect, table: Table) -> Statement:
    """Return the statement that adds a row to a table; on SQLite it has a ``together``."""
    names = table.columns.keys()
    together = _added_together(dialect, table) if dialect.name == "sqlite" else None
    clause = insert(table).values({name: bindparam(name) for name in names})
    return Statement(dialect, clause, *names, together=together)


def _added_together(dialect: Dialect, table: Table) -> Statement:
    names = table.columns.keys()
    rows = [[f"{name}_{number}" for name in names] for number in range(_TOGETHER)]
    values: Any = [dict(zip(names, map(bindparam, row), strict=True)) for row in rows]
    return Statement(dialect, insert(table).values(values), *chain.from_iterable(rows))


def _known(dialect: Dialect, count: int) -> Statement:
    """Return the statement that finds the chain of each of ``count`` event ids."""
    names = [f"id_{number}" for number in range(count)]
    found = entries.c.event_id.in_([bindparam(name) for name in names])
    query = select(entries.c.event_id, entries.c.chain).where(found)
    return Statement(dialect, query, *names)


def _dialect_insert(dialect: Dialect) -> Any:
    """Return the dialect's insert, which has ON CONFLICT."""
    return import_module(f"sqlalchemy.dialects.{dialect.name}").insert


_compiled_for: dict[tuple[type[Dialect], str], Statements] = {}
"""By dialect class and style of parameters: compiled once for all engines of a kind."""


def statements_of(dialect: Dialect) -> Statements:
    """Return a dialect's statements, compiled once."""
    kind = type(dialect), dialect.paramstyle
    found = _compiled_for.get(kind)
    if found is None:
        found = _compiled_for[kind] = Statements(dialect)
    return found
