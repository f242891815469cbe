"""Have a taskiq consumer lose no job by a worker that is not imported, or by odd labels."""

from __future__ import annotations

import logging
import re
from typing import Any

from sigra.backends.envelope import MARK
from sigra.backends.taskiq_queues import queues_of
from sigra.backends.taskiq_run import LABELS, add, is_ours
from sigra.errors import brief

_log = logging.getLogger("sigra.job")

_LONGEST = 10_000
"""Characters of a task's name and id: RabbitMQ breaks the connection that sends far longer ones."""


class Formatter:
    """Have a task for each job that comes: taskiq would drop one whose worker is not imported.

    And have its labels as they must be, whatever the message says. By others taskiq would raise an
    error and never acknowledge it, or its next run could not be sent, or not to a queue of ours.
    """

    def __init__(self, broker: Any, schedules: Any) -> None:
        self._broker, self._schedules, self._own = broker, schedules, broker.formatter

    def dumps(self, message: Any) -> Any:
        """Write a message as the broker's own formatter does."""
        return self._own.dumps(message)

    def loads(self, message: bytes) -> Any:
        """Read a message; if it is a job without a task here, add one."""
        loaded, find = self._own.loads(message), self._broker.find_task
        if MARK in loaded.kwargs:
            if len(loaded.task_name + loaded.task_id) > _LONGEST:
                what = f"the task's name and id have over {_LONGEST} characters: no job's do"
                raise ValueError(what)
            if find(loaded.task_name) is None:
                add(self._broker, self._schedules, loaded.task_name)
        task = find(loaded.task_name)
        if task is not None and is_ours(task):
            self._correct(loaded)
        return loaded

    def _correct(self, message: Any) -> None:
        labels, types = message.labels, message.labels_types or {}
        queues = queues_of(self._broker)
        queue = labels.get("queue_name")
        if queues and queue not in queues and not any(_takes(each, queue) for each in queues):
            labels["queue_name"] = queues[0]
            if queue is not None:
                what = "job %s names a queue that its consumer does not have: taken as of %s"
                _log.warning(what, brief(message.task_id), queues[0])
        labels.update(LABELS)
        for name in ("queue_name", *LABELS):
            types.pop(name, None)  # by which taskiq would read it as of another type


def keep_unknown(broker: Any, schedules: Any) -> None:
    """Have a broker read by a ``Formatter``, unless it does."""
    if not isinstance(broker.formatter, Formatter):
        broker.with_formatter(Formatter(broker, schedules))


def _takes(known: str, queue: Any) -> bool:
    """Tell whether what is bound by that pattern of RabbitMQ's takes the messages of a queue."""
    pattern = re.escape(known)
    for sign, meaning in ((r"\.\#", r"(\..*)?"), (r"\#", ".*"), (r"\*", "[^.]*")):
        pattern = pattern.replace(sign, meaning)
    return isinstance(queue, str) and bool(re.fullmatch(pattern, queue))
