"""An event on its way to the sinks, each apart from the others."""

from __future__ import annotations

import threading
from typing import Any

from sigra.audit.event import AuditEvent
from sigra.audit.read import type_name
from sigra.audit.sink import Sink
from sigra.schema import build_record

_thread = threading.local()


def write_record(
    event: AuditEvent, schema: Any, sinks: tuple[Sink, ...], faults: list[str]
) -> None:
    """Make the record, write it to every sink, and add to ``faults`` who raised, by type.

    A schema that raises keeps the event from no sink: the record is then None. An
    event that a sink logs while it writes one goes to no sink, or it would never end.
    """
    record: Any = None
    try:
        record = build_record(schema, event)
    except Exception as error:
        faults.append(f"the audit_schema raised {type_name(type(error))}")
    if not sinks:
        return
    if getattr(_thread, "writing", False):
        faults.append("a sink logged it while writing another, so no sink was given it")
        return
    _thread.writing = True
    try:
        for sink in sinks:
            try:
                sink.write(event, record)
            except Exception as error:
                faults.append(f"{type_name(type(sink))} raised {type_name(type(error))}")
    finally:
        _thread.writing = False
