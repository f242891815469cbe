"""What the pairs of all queues share: a worker, ways of timing, databases of their own."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timezone
from importlib import import_module
from typing import Any

from benchmarks.byhand import FLAT
from benchmarks.measure import Pair, Timed, clock
from sigra import tenant_worker
from sigra.backends.envelope import pack
from sigra.job import Job

REDIS = os.environ.get("SIGRA_REDIS_URL", "redis://127.0.0.1:6379/14")
RABBITMQ = os.environ.get("SIGRA_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
POSTGRES = os.environ.get("SIGRA_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")

_AWAITED = {"oban", "pgqueuer", "saq", "taskiq"}
_numbers = itertools.count()


def new_name() -> str:
    """Return a name of this run alone, for a queue or a database."""
    return f"sigra_bench_{uuid.uuid4().hex[:8]}"


Payload = dict[str, Any]


def make_worker(backend: Any) -> tuple[Any, Callable[[Payload], Payload]]:
    """Return a worker on the backend, and what one would write by hand instead of ``.new()``."""

    def body(scope: Any, args: Any) -> None:
        pass

    async def async_body(scope: Any, args: Any) -> None:
        pass

    function = async_body if backend.name in _AWAITED else body  # as its own are
    worker = tenant_worker(name=f"benchmark.{next(_numbers)}", backend=backend)(function)
    return worker, by_hand(worker.name)


def by_hand(worker: str) -> Callable[[Payload], Payload]:
    """Return the producer's half of H_c, which leaves the writing of JSON to the queue.

    It checks the two keys, makes an id and a timestamp, and has an envelope's fields, so
    that both sides send as much.
    """

    def write(args: Payload) -> Payload:
        if "organization_id" not in args or "actor_id" not in args:
            raise ValueError("organization_id and actor_id are required")
        return {
            "version": 2,
            "id": str(uuid.uuid4()),
            "worker": worker,
            "args": args,
            "queue": None,
            "priority": 0,
            "max_attempts": 1,
            "backoff": None,
            "enqueued_at": datetime.now(timezone.utc).isoformat(),
            "failures": 0,
            "snoozes": 0,
            "deliveries": 0,
        }

    return write


def envelope() -> Pair:
    """Compare what both sides do before a queue's own call."""
    worker, write = make_worker(_Nowhere())
    return Pair(_calls(lambda: worker.new(FLAT)), _calls(lambda: write(FLAT)))


class _Nowhere:
    name, capabilities = "nowhere", frozenset[str]()

    def enqueue(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            pack(job)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        self.enqueue(jobs)


def called(
    ours: Callable[[], object], theirs: Callable[[], object], close: Callable[[], object]
) -> Pair:
    """Compare two ways of sending a job."""
    return Pair(_calls(ours), _calls(theirs), close, least=0.02)


def awaited(
    runner: asyncio.Runner,
    ours: Callable[[], Awaitable[object]],
    theirs: Callable[[], Awaitable[object]],
    close: Callable[[], object],
) -> Pair:
    """Compare two ways of sending a job that are awaited."""
    return Pair(_awaits(runner, ours), _awaits(runner, theirs), close, least=0.02)


def drained(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    drain: Callable[[int], object],
    close: Callable[[], object],
) -> Pair:
    """Compare what a consumer needs for jobs that were sent before; it is told how many."""

    def timed(send: Callable[[], object]) -> Timed:
        def sample(loops: int) -> float:
            for _ in range(loops):
                send()
            start = clock()
            drain(loops)
            return clock() - start

        return sample

    return Pair(timed(ours), timed(theirs), close, most=256, least=0.2)


def _calls(function: Callable[[], object]) -> Timed:
    def timed(loops: int) -> float:
        start = clock()
        for _ in range(loops):
            function()
        return clock() - start

    return timed


def _awaits(runner: asyncio.Runner, function: Callable[[], Awaitable[object]]) -> Timed:
    async def many(loops: int) -> float:
        start = clock()
        for _ in range(loops):
            await function()
        return clock() - start

    return lambda loops: runner.run(many(loops))


def redis_client() -> Any:
    """Connect to the Redis that is measured with."""
    return import_module("redis").Redis.from_url(REDIS)


def forget(name: str) -> None:
    """Delete what Redis holds under keys that have the name in them."""
    with redis_client() as client:
        for key in client.scan_iter(f"*{name}*", 1000):
            client.delete(key)


def new_database() -> tuple[str, Callable[[], None]]:
    """Return the URL of an empty database, and what drops it."""
    name = new_name()
    _execute(f"CREATE DATABASE {name}")
    url = POSTGRES.rpartition("/")[0] + f"/{name}"
    return url, lambda: _execute(f"DROP DATABASE {name} WITH (FORCE)")


def _execute(statement: str) -> None:
    with import_module("psycopg").connect(POSTGRES, autocommit=True) as conn:
        conn.execute(statement)


def nothing(payload: Any) -> None:
    """Be a function of the user's own."""


def ignored(**payload: Any) -> None:
    """Be a task of the user's own."""


async def ignored_async(**payload: Any) -> None:
    """Be an async task of the user's own."""
