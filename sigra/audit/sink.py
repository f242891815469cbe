"""Where audit events go besides structlog."""

from __future__ import annotations

import os
import threading
from typing import IO, TYPE_CHECKING, Any, Protocol, runtime_checkable

from sigra.audit.line import line_of
from sigra.schema import EVENT_FIELDS

if TYPE_CHECKING:
    from sigra.audit.event import AuditEvent


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
        if isinstance(target, (str, os.PathLike)):
            self._stream: Any = open(target, "ab")  # noqa: SIM115
            self._binary = True
        else:
            self._stream = target
            self._binary = not _takes_text(target)

    def write(self, event: AuditEvent, record: Any = None) -> None:  # noqa: ARG002
        """Append one line; lines of different threads never mix."""
        fields = {name: getattr(event, name) for name in EVENT_FIELDS}
        fields["occurred_at"] = event.occurred_at.isoformat()
        line = line_of(fields) + b"\n"
        with self._lock:
            self._stream.write(line if self._binary else line.decode())
            self._stream.flush()

    def close(self) -> None:
        """Flush, and close the file if the sink opened it. Closing twice is fine."""
        with self._lock:
            if not self._stream.closed:
                self._stream.flush()
                if self._owned:
                    self._stream.close()


def _takes_text(stream: Any) -> bool:
    try:
        stream.write("")
    except TypeError:
        return False
    return True
