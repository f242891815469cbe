"""Goals 3, 4, 9 and 12: beside the tools that one would pick instead, each set up as it asks.

``python -m benchmarks.peers``, where their packages are installed. A limit is the inverse of
how many times faster Sigra has to be.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import peer_jobs, peer_logs
from benchmarks.goals import Goal
from benchmarks.measure import paired
from benchmarks.table import measure_all

_RESULTS = Path(__file__).parent / "results" / "peers"

_CALLS: tuple[tuple[str, str, Callable[[], Callable[[dict[str, Any]], object]], float, float], ...]
_CALLS = (
    ("huey immediate", "huey", peer_jobs.huey_immediate, 3, 1.3),
    ("oban process_job", "oban", peer_jobs.oban_process, 4, 2),
    ("Django immediate", "django", peer_jobs.django_immediate, 10, 4),
    ("celery apply", "celery", partial(peer_jobs.celery_eager, "apply"), 12, 5),
    ("celery eager delay", "celery", partial(peer_jobs.celery_eager, "delay"), 25, 12),
)
"""Its package, its call, and how many times faster ours has to be; and with the stdlib's JSON."""

_CONSUMERS = (
    ("huey", "huey", peer_jobs.huey_threads, 2),
    ("dramatiq", "dramatiq", peer_jobs.dramatiq_threads, 4.5),
    ("taskiq", "taskiq", peer_jobs.taskiq_threads, 5),
    ("celery", "celery", peer_jobs.celery_threads, 20),
)
_LOGGERS = (
    ("python-json-logger", "pythonjsonlogger", peer_logs.json_logger, 3),
    ("structlog via stdlib", "structlog", peer_logs.structlog_stdlib, 3.5),
    ("loguru", "loguru", peer_logs.loguru, 5),
)


def goals() -> tuple[list[Goal], list[str]]:
    """Return what can be measured here, and of the rest why it cannot."""
    rows: list[tuple[str, Goal]] = []
    for name, package, call, faster, faster_stdlib in _CALLS:
        make = paired(partial(peer_jobs.inline, call))
        rows.append((package, Goal(f"3 {name}", "sync .new()", name, 1 / faster, make)))
        limit = 1 / faster_stdlib
        rows.append((package, Goal(f"4 {name}", "the same, stdlib", name, limit, make, "stdlib")))
    for name, package, consumer, faster in _CONSUMERS:
        make = paired(partial(peer_jobs.threads, consumer))
        rows.append((package, Goal(f"9 {name}", "a job on threads", name, 1 / faster, make)))
    for name, package, logger, faster in _LOGGERS:
        make = paired(partial(peer_logs.logged, logger))
        rows.append((package, Goal(f"12 {name}", "log_safe", name, 1 / faster, make)))
    found = [goal for package, goal in rows if find_spec(package) is not None]
    missing = {package for package, _ in rows if find_spec(package) is None}
    return found, [f"{package}: it is not installed here" for package in sorted(missing)]


if __name__ == "__main__":
    sys.exit(measure_all("benchmarks.peers", goals(), _RESULTS))
