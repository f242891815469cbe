"""Where audit events go besides structlog."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sigra.audit.read import error_name, type_name
from sigra.frozen import read_only
from sigra.schema import build_record

if TYPE_CHECKING:
    from sigra.audit.event import AuditEvent
    from sigra.audit.transaction import Transaction


@runtime_checkable
class Sink(Protocol):
    """Keep audit events. Given to ``configure(sinks=[...])``."""

    def write(self, event: AuditEvent, record: Any) -> None:
        """Keep one event, or raise: the caller's ``AuditResult`` then says "failed".

        ``record`` is the event as the audit schema has it: the event itself if that is
        ``AuditEvent``, None if the schema could not make one. All sinks get the same two
        objects; neither the event nor its metadata can be changed. Called from any thread.
        """

    def close(self) -> None:
        """Release what the sink holds; nothing is written after this."""


_writing: ContextVar[Collection[AuditEvent]] = ContextVar("sigra_writing", default=())
"""A list with the event that this context is writing; empty if none. It belongs to a context, not
to a thread: while an async driver waits, other tasks run in the thread. At the end the list is
emptied, because a task that began meanwhile has a copy of the variable, with the same list."""


def write_record(
    event: AuditEvent, schema: Any, sinks: Sequence[Sink], faults: list[str],
    transaction: Transaction | None, flushing: bool = False,
) -> int:  # fmt: skip
    """Make the record and write it to every sink; return how many took it.

    Adds to ``faults`` who raised, by type. ``flushing``: sinks that queue events write them now.
    If the schema raises, the sinks are given None for the record. What a sink logs while it
    writes an event goes to no sink, or it would never end.
    """
    record, taken = None, 0
    object.__setattr__(event, "metadata", read_only(event.metadata))  # all sinks are given it
    try:
        record = build_record(schema, event)
    except Exception as error:
        faults.append(fault_of("the audit_schema", error))
    if sinks and _writing.get():
        faults.append("a sink logged it while writing another, so no sink was given it")
        return taken
    written = [event]
    try:
        _writing.set(written)
        for sink in sinks:
            try:
                if transaction is None:
                    sink.write(event, record)
                else:
                    transaction.write(sink, event, record)
                if flushing:
                    flush(sink)
                taken += 1
            except Exception as error:
                faults.append(fault_of(type_name(type(sink)), error))
    finally:
        written.clear()
    return taken


def flush(sink: Any) -> None:
    """Have a sink that queues events write them now; do nothing with any other."""
    if hasattr(sink, "flush"):
        sink.flush()


def fault_of(who: str, error: Exception) -> str:
    """Say who raised what, by type alone: an exception's text may hold what was logged."""
    return f"{who} raised {error_name(error)}"
