"""Have a Dramatiq broker on RabbitMQ lose no job, neither to a deleted queue nor after a fork."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import ref

from sigra.backends.producing import check_on_rabbitmq
from sigra.backends.rabbitmq_notes import SLOTS
from sigra.errors import InvalidOptionError
from sigra.job import Job

_left: list[Any] = []


def surely_send(broker: Any) -> None:
    """Have RabbitMQ confirm each message, and each process send by connections of its own.

    Otherwise RabbitMQ silently drops what no queue takes; with this, Dramatiq makes a deleted
    queue anew. Connections made before do not ask for it, so each thread makes a new one.
    """
    if not getattr(broker, "confirm_delivery", True):
        broker.confirm_delivery, broker.state = True, threading.local()
    if hasattr(broker, "connections") and hasattr(os, "register_at_fork"):
        known = ref(broker)
        os.register_at_fork(after_in_child=lambda: _leave_to_parent(known()))


def queue_of(broker: Any, job: Job) -> str:
    """Return the queue that a job is sent to.

    Raises ``InvalidOptionError`` for one whose jobs would not run.
    """
    if (job.options.queue or "").endswith((".DQ", ".XQ")):
        reason = "it must not end in .DQ or .XQ, Dramatiq's own queues of delayed and dead messages"
        raise InvalidOptionError("queue", reason, job.worker)
    if hasattr(broker, "connections"):
        check_on_rabbitmq(job, f".begun.{SLOTS}")  # the longest that is added to its name
    return job.options.queue or str(broker.actors[job.worker].queue_name)


def _leave_to_parent(broker: Any) -> None:
    """Have a forked process connect to RabbitMQ itself; its parent's connections stay open."""
    if broker is not None:
        _left.append((broker.state, broker.connections, broker.channels))
        broker.state, broker.connections, broker.channels = threading.local(), set(), set()
