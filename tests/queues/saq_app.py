"""The consumer of test_saq: ``saq saq_app.settings``."""

from __future__ import annotations

import consumer_side
from saq import Queue

from sigra.backends.saq import SaqBackend
from sigra.config import configure

queue = Queue.from_url(consumer_side.URL, name=consumer_side.QUEUE)
backend = SaqBackend(queue, heartbeat=10)
configure(backend=backend)


def note(context, text):
    consumer_side.note(text)


settings = {
    "queue": queue,
    "functions": [note, *backend.functions],
    "concurrency": 2,
    "timers": {"sweep": 24 * 3600},  # SaqHarness does
    "shutdown_grace_period_s": 3,  # without one, SAQ cancels what runs
}
