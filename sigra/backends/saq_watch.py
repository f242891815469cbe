"""Keep what SAQ itself would do from the jobs of a queue, also of one that no backend was given.

A consumer may have made its queue anew, as ``Queue.from_url`` with the same name does.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import Any

from sigra.backends.external import native
from sigra.backends.saq_begin import watch_begins, watch_hooks
from sigra.backends.saq_ended import watch_ends
from sigra.backends.saq_sweep import look_for_lost


def watch(queue: Any) -> None:
    """Watch the begins and ends of a queue's jobs, and look for lost ones."""
    look_for_lost(queue)
    watch_begins(queue)
    watch_ends(queue)


@cache
def watch_consumers() -> None:
    """Have each consumer that this process makes from now on watch its queue and its hooks."""
    kind = native("saq", "saq").Worker
    make = kind.__init__

    @wraps(make)
    def make_and_watch(worker: Any, *args: Any, **options: Any) -> None:
        make(worker, *args, **options)
        watch(worker.queue)
        watch_hooks(worker)

    kind.__init__ = make_and_watch
