"""The consumer of test_rq: ``rq worker -c rq_app --path tests/queues``."""

from __future__ import annotations

import consumer_side

note = consumer_side.note
