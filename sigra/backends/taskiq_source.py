"""Refuse as ``schedules`` what takes no schedule: a scheduler, a list, or a source of labels."""

from __future__ import annotations

from typing import Any

from sigra.backends.external import native

_nothing_added = native("taskiq", "taskiq").ScheduleSource.add_schedule


def refuse_unwritable(schedules: Any) -> None:
    """Raise ``ValueError``, which names the cure, unless retries and delays can be added to it."""
    add = getattr(schedules, "add_schedule", None)
    if schedules is None or getattr(add, "__func__", add) not in (None, _nothing_added):
        return
    raise ValueError(
        f"this {type(schedules).__name__} takes no schedules, so no job would be retried: pass a "
        "source that does, such as ListRedisScheduleSource(..., serializer=JSONSerializer()), "
        "and give it to the TaskiqScheduler too"
    )
