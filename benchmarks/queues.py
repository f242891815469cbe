"""Goal 16: what Sigra adds to a queue's own enqueue, and to a job that its consumer runs.

``python -m benchmarks.queues``, where the queues' extras are installed and their servers
answer. Both sides carry as much, by the same native object: the other one is the queue's own call
with what one would write by hand before it (``by_hand``). Measured is this process's time on
its processor, so that a busy machine spoils nothing; the server's is left out, and Sigra's share of
what a caller waits for is smaller than what is shown.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import queue_brokers as brokers
from benchmarks import queue_consumers as consumers
from benchmarks import queue_databases as databases
from benchmarks.goals import Goal
from benchmarks.measure import Pair, paired
from benchmarks.queue_sides import POSTGRES, RABBITMQ, REDIS, envelope
from benchmarks.table import measure_all

_RESULTS = Path(__file__).parent / "results" / "queues"
_ADDED, _ADDED_STDLIB = 1.04, 1.07

_QUEUES: dict[str, tuple[str, str, Callable[[], Pair], Callable[[], Pair]]] = {
    "celery redis": (
        "celery",
        REDIS,
        partial(brokers.celery, REDIS),
        partial(consumers.celery, REDIS),
    ),
    "celery rabbitmq": (
        "celery",
        RABBITMQ,
        partial(brokers.celery, RABBITMQ),
        partial(consumers.celery, RABBITMQ),
    ),
    "rq": ("rq", REDIS, brokers.rq, brokers.rq_consumed),
    "dramatiq redis": (
        "dramatiq",
        REDIS,
        partial(brokers.dramatiq, REDIS),
        partial(brokers.dramatiq, REDIS, consumed=True),
    ),
    "dramatiq rabbitmq": (
        "dramatiq",
        RABBITMQ,
        partial(brokers.dramatiq, RABBITMQ),
        partial(brokers.dramatiq, RABBITMQ, consumed=True),
    ),
    "huey sqlite": ("huey", "", databases.huey, partial(databases.huey, consumed=True)),
    "huey redis": ("huey", REDIS, brokers.huey, partial(brokers.huey, consumed=True)),
    "taskiq redis": (
        "taskiq",
        REDIS,
        partial(brokers.taskiq, REDIS),
        partial(consumers.taskiq, REDIS),
    ),
    "taskiq rabbitmq": (
        "taskiq",
        RABBITMQ,
        partial(brokers.taskiq, RABBITMQ),
        partial(consumers.taskiq, RABBITMQ),
    ),
    "saq": ("saq", REDIS, brokers.saq, brokers.saq_consumed),
    "procrastinate": (
        "procrastinate",
        POSTGRES,
        databases.procrastinate,
        databases.procrastinate_consumed,
    ),
    "oban": ("oban", POSTGRES, databases.oban, consumers.oban),
    "pgqueuer": ("pgqueuer", POSTGRES, databases.pgqueuer, consumers.pgqueuer),
    "django": (
        "django_tasks_db",
        POSTGRES,
        databases.django,
        partial(databases.django, consumed=True),
    ),
}
"""Its package, its server ("" for none), and what makes the pair of an enqueue and of a
consumed job."""

_envelope = paired(envelope)
_ALONE = (
    Goal("16+ envelope", "what comes before it", "by hand", None, _envelope),
    Goal("16s+ envelope", "the same, stdlib", "by hand", None, _envelope, "stdlib"),
)
"""What both sides do before a queue's own call."""


def goals() -> tuple[list[Goal], list[str]]:
    """Return what can be measured here, and of the rest why it cannot."""
    found, missing = list(_ALONE), list[str]()
    for name, (package, server, enqueued, consumed) in _QUEUES.items():
        if find_spec(package) is None:
            missing.append(f"{name}: {package} is not installed here")
            continue
        if server and not _answers(server):
            missing.append(f"{name}: no server at {server}")
            continue
        make, call = paired(enqueued), "by hand"
        found.append(Goal(f"16 {name}", ".new()", call, _ADDED, make))
        found.append(Goal(f"16s {name}", ".new(), stdlib", call, _ADDED_STDLIB, make, "stdlib"))
        make = paired(consumed)
        found.append(Goal(f"16c {name}", "a consumed job", "its own function", None, make))
        if name == "rq":
            make = paired(partial(brokers.rq, batch=100))
            found.append(Goal("16m rq", ".new_many, 100 jobs", "enqueue_many", 1.1, make))
    return found, missing


def _answers(server: str) -> bool:
    parts = urlsplit(server)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 0), 2).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(measure_all("benchmarks.queues", goals(), _RESULTS))
