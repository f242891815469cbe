"""Audit events in a file, one a line; it needs no package."""

from __future__ import annotations

import os
import threading
from typing import IO, Any

from sigra.audit.event import EVENT_FIELDS, AuditEvent
from sigra.audit.line import line_of


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
            if self._owned:
                self._stream.close()  # also where it cannot flush, as a full disk
            elif not self._stream.closed:
                self._stream.flush()
