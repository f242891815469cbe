"""Pairs about signed envelopes: ours, and the same payload by itsdangerous."""

from __future__ import annotations

import time

from benchmarks import byhand
from benchmarks.jobs import make_worker
from benchmarks.measure import Pair, clock


def sealed() -> Pair:
    """Compare signing and verifying an envelope with a URLSafeTimedSerializer's round trip."""
    from itsdangerous import URLSafeTimedSerializer

    import sigra
    from sigra.backends.envelope import pack

    key = b"k" * 32
    settings = sigra.Signing({"a": key}, "a", "bench", lifetime=3600)
    serializer = URLSafeTimedSerializer(key, salt="bench")
    worker = make_worker()
    payload = pack(worker.new(byhand.FLAT))
    name = worker.name

    def ours(loops: int) -> float:
        start = clock()
        for _ in range(loops):
            settings.open(settings.seal(payload), name, time.time_ns())
        return clock() - start

    def floor(loops: int) -> float:
        start = clock()
        for _ in range(loops):
            serializer.loads(serializer.dumps(payload), max_age=3600)
        return clock() - start

    return Pair(ours, floor)
