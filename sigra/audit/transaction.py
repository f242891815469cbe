"""Audit events in a transaction of the caller's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from sigra import config
from sigra.audit.event import AuditEvent
from sigra.audit.sink import Sink
from sigra.errors import SigraError

Pair = tuple[AuditEvent, Any]
"""An event, and its record as the audit schema has it."""


class NoAuditStoreError(SigraError, LookupError):
    """Report that no configured sink can do what was asked. Attribute: ``task``."""

    def __init__(self, task: str = "write in a transaction") -> None:
        super().__init__(
            f"no configured sink can {task}: add a store, as in "
            "configure(sinks=[sigra.store.SqlAuditSink('sqlite:///audit.db')])"
        )
        self.task = task


@runtime_checkable
class TransactionalSink(Protocol):
    """A sink that can write in its caller's transaction."""

    def write_in(self, conn: Any, pairs: Sequence[Pair], *, savepoint: bool) -> None:
        """Keep events, or raise; with ``savepoint`` the transaction can then go on.

        ``conn`` is the caller's connection or session; None: one transaction of the sink's own.
        """


class Transaction:
    """What one call writes in its caller's transaction, and the error if that failed.

    ``strict``: the caller wants that error, so no savepoint is needed. ``held``: events kept
    back, to be written together.
    """

    def __init__(self, conn: Any, *, strict: bool, held: list[Pair] | None = None) -> None:
        self._conn, self._strict, self.held = conn, strict, held
        self.error: Exception | None = None

    def write(self, sink: Sink, event: AuditEvent, record: Any) -> None:
        """Write one event to a sink; one that knows no transactions writes as it always does."""
        if not isinstance(sink, TransactionalSink):
            sink.write(event, record)
        elif self.held is None:
            try:
                sink.write_in(self._conn, [(event, record)], savepoint=not self._strict)
            except Exception as error:
                self.error = error
                raise
        elif not self.held or self.held[-1][0] is not event:
            self.held.append((event, record))


def transaction_of(conn: Any, *, strict: bool) -> Transaction | None:
    """Return the transaction of a call with this ``conn``, which may be one already, or be None."""
    return conn if conn is None or type(conn) is Transaction else Transaction(conn, strict=strict)


def stores() -> list[TransactionalSink]:
    """Return the configured sinks that can write in a transaction."""
    return [sink for sink in config.current.sinks if isinstance(sink, TransactionalSink)]
