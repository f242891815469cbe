"""Where audit events go besides structlog."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol, runtime_checkable

from sigra.audit.line import line_of
from sigra.audit.read import type_name
from sigra.schema import EVENT_FIELDS, build_record

if TYPE_CHECKING:
    from sigra.audit.event import AuditEvent
    from sigra.audit.transaction import Transaction


@runtime_checkable
class Sink(Protocol):
    """Keep audit events. Given to ``configure(sinks=[...])``."""

    def write(self, event: AuditEvent, record: Any) -> None:
        """Keep one event, or raise: the caller's ``AuditResult`` then says "failed".

        ``record`` is the event as the audit schema has it: the event itself where
        that is ``AuditEvent``, None where the schema could not make one. Called from
        any thread.
        """

    def close(self) -> None:
        """Let go of what the sink holds; after this nothing is written."""


class JSONLinesSink:
    """Write each event as one line of strict JSON, and flush it.

    ``target`` is a path, to which is appended, or a stream, text or binary. The keys
    are the fields of ``AuditEvent``; ``occurred_at`` is ISO 8601 in UTC. Only a file
    that the sink opened itself is closed by ``close``.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[str] | IO[bytes]) -> None:
        self._lock = threading.Lock()
        self._owned = isinstance(target, (str, os.PathLike))
        self._stream: Any = open(target, "ab") if self._owned else target  # type: ignore[arg-type]  # noqa: SIM115
        self._text = hasattr(self._stream, "encoding")

    def write(self, event: AuditEvent, record: Any = None) -> None:  # noqa: ARG002
        """Append one line; lines of different threads never mix."""
        fields = {name: getattr(event, name) for name in EVENT_FIELDS}
        line = line_of(fields) + b"\n"
        with self._lock:
            self._stream.write(line.decode() if self._text else line)
            self._stream.flush()

    def close(self) -> None:
        """Flush, and close the file if the sink opened it. Closing twice is fine."""
        with self._lock:
            if not self._stream.closed:
                self._stream.flush()
                if self._owned:
                    self._stream.close()


_thread = threading.local()


def write_record(
    event: AuditEvent,
    schema: Any,
    sinks: Sequence[Sink],
    faults: list[str],
    transaction: Transaction | None,
) -> None:
    """Make the record, write it to every sink, and add to ``faults`` who raised, by type.

    A schema that raises keeps the event from no sink: the record is then None. An
    event that a sink logs while it writes one goes to no sink, or it would never end.
    """
    record: Any = None
    try:
        record = build_record(schema, event)
    except Exception as error:
        faults.append(fault_of("the audit_schema", error))
    if sinks and getattr(_thread, "writing", False):
        faults.append("a sink logged it while writing another, so no sink was given it")
        return
    _thread.writing = True
    try:
        for sink in sinks:
            try:
                if transaction is None:
                    sink.write(event, record)
                else:
                    transaction.write(sink, event, record)
            except Exception as error:
                faults.append(fault_of(type_name(type(sink)), error))
    finally:
        _thread.writing = False


def fault_of(who: str, error: Exception) -> str:
    """Say who raised what, by type: the text of an exception may hold what was logged."""
    return f"{who} raised {type_name(type(error))}"
