"""The two sides of an enqueue on each queue, and of a job that a consumer runs."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import uuid
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from benchmarks.byhand import FLAT
from benchmarks.measure import Pair, Timed, clock
from sigra import catalog, tenant_worker
from sigra.envelope import pack
from sigra.job import Job
from sigra.options import PLAIN

REDIS = os.environ.get("SIGRA_REDIS_URL", "redis://127.0.0.1:6379/14")
RABBITMQ = os.environ.get("SIGRA_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
POSTGRES = os.environ.get("SIGRA_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")

_LEAST = 0.02
_numbers = itertools.count()


def _name() -> str:
    return f"sigra-bench-{uuid.uuid4().hex[:8]}"


def _worker(backend: Any) -> tuple[Any, dict[str, Any]]:
    """Return a worker on the backend, and what a job of it is as a payload."""

    def body(scope: Any, args: Any) -> None:
        pass

    async def async_body(scope: Any, args: Any) -> None:
        pass

    function = async_body if backend.name == "saq" else body  # as its own are
    worker = tenant_worker(name=f"benchmark.{next(_numbers)}", backend=backend)(function)
    return worker, pack(Job(catalog.lookup(worker.name), FLAT, PLAIN, backend.name))


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


def _drained(send: Callable[[], object], drain: Callable[[], object]) -> Timed:
    """Time what a consumer needs for jobs that were sent before."""

    def timed(loops: int) -> float:
        for _ in range(loops):
            send()
        start = clock()
        drain()
        return clock() - start

    return timed


def _redis_client() -> Any:
    return import_module("redis").Redis.from_url(REDIS)


def _forget(name: str) -> None:
    with _redis_client() as client:
        for key in client.scan_iter(f"*{name}*", 1000):
            client.delete(key)


def rq(batch: int = 0) -> Pair:
    """Compare with ``queue.enqueue``, or a batch with ``queue.enqueue_many``."""
    native = import_module("rq")
    backend_module = import_module("sigra.backends.rq")
    queue = native.Queue(_name(), connection=_redis_client(), serializer="json")
    worker, payload = _worker(backend_module.RQBackend(queue))

    def close() -> None:
        queue.delete(delete_jobs=True)
        _forget(queue.name)

    if not batch:
        ours = _calls(lambda: worker.new(FLAT))
        theirs = _calls(lambda: queue.enqueue(backend_module.run, worker.name, payload))
        return Pair(ours, theirs, close, least=_LEAST)
    function, items = backend_module.run, [FLAT] * batch

    def enqueue_many() -> None:
        prepare = queue.prepare_data
        queue.enqueue_many([prepare(function, args=(worker.name, payload)) for _ in items])

    many = _calls(lambda: worker.new_many(items))
    return Pair(many, _calls(enqueue_many), close, least=_LEAST)


def rq_consumed() -> Pair:
    """Compare with a function of RQ's own, run by a worker in this process."""
    native = import_module("rq")
    backend_module = import_module("sigra.backends.rq")
    logging.disable(logging.WARNING)
    queue = native.Queue(_name(), connection=_redis_client(), serializer="json")
    worker, payload = _worker(backend_module.RQBackend(queue))
    consumer = native.SimpleWorker([queue], connection=queue.connection, serializer="json")

    def drain() -> None:
        consumer.work(burst=True, logging_level="ERROR")

    return Pair(
        _drained(lambda: worker.new(FLAT), drain),
        _drained(lambda: queue.enqueue("benchmarks.queue_sides.nothing", payload), drain),
        lambda: (queue.delete(delete_jobs=True), _forget(queue.name)),
        most=256,
        least=0.2,
    )


def nothing(payload: Any) -> None:
    """Be a function of the user's own."""


def ignored(**payload: Any) -> None:
    """Be a task of the user's own."""


def celery_on_redis() -> Pair:
    """Compare with ``task.apply_async``."""
    return _celery(REDIS)


def celery_on_rabbitmq() -> Pair:
    """Compare with ``task.apply_async``."""
    return _celery(RABBITMQ)


def _celery(url: str) -> Pair:
    name = _name()
    app = import_module("celery").Celery(broker=url, set_as_current=False)
    app.conf.update(task_default_queue=name)
    backend = import_module("sigra.backends.celery").CeleryBackend(app)
    worker, payload = _worker(backend)
    native = app.task(ignored, name="native", ignore_result=True)

    def close() -> None:
        with app.connection_for_write() as connection:
            connection.default_channel.queue_purge(name)
            connection.default_channel.queue_delete(name)
        app.close()
        if url == REDIS:
            _forget(name)

    ours, theirs = (lambda: worker.new(FLAT)), (lambda: native.apply_async(kwargs=payload))
    return Pair(_calls(ours), _calls(theirs), close, least=_LEAST)


def dramatiq_on_redis() -> Pair:
    """Compare with ``actor.send``."""
    native, name = import_module("dramatiq"), _name()
    broker = import_module("dramatiq.brokers.redis").RedisBroker(url=REDIS, namespace=name)
    worker, payload = _worker(import_module("sigra.backends.dramatiq").DramatiqBackend(broker))
    actor = native.actor(ignored, actor_name="native", broker=broker)
    ours, theirs = (lambda: worker.new(FLAT)), (lambda: actor.send(**payload))
    return Pair(_calls(ours), _calls(theirs), lambda: _forget(name), least=_LEAST)


def procrastinate() -> Pair:
    """Compare with ``task.defer``."""
    native, psycopg = import_module("procrastinate"), import_module("psycopg")
    name = _name().replace("-", "_")
    with psycopg.connect(POSTGRES, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    url = POSTGRES.rpartition("/")[0] + f"/{name}"
    app = native.App(connector=native.SyncPsycopgConnector(conninfo=url))
    app.open()
    app.schema_manager.apply_schema()
    backend_module = import_module("sigra.backends.procrastinate")
    worker, payload = _worker(backend_module.ProcrastinateBackend(app))
    task = app.task(name="native")(ignored)

    def close() -> None:
        app.close()
        with psycopg.connect(POSTGRES, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")

    ours, theirs = (lambda: worker.new(FLAT)), (lambda: task.defer(**payload))
    return Pair(_calls(ours), _calls(theirs), close, least=_LEAST)


def saq() -> Pair:
    """Compare with ``await queue.enqueue``."""
    native, runner = import_module("saq"), asyncio.Runner()
    queue = native.Queue.from_url(REDIS, name=_name())
    worker, payload = _worker(import_module("sigra.backends.saq").SaqBackend(queue))

    def close() -> None:
        runner.run(queue.disconnect())
        _forget(queue.name)

    ours = _awaits(runner, lambda: worker.anew(FLAT))
    theirs = _awaits(runner, lambda: queue.enqueue("native", kwargs=payload))
    return Pair(ours, theirs, close, least=_LEAST)


def saq_consumed() -> Pair:
    """Compare with a function of SAQ's own, run by a worker in this process."""
    native, runner = import_module("saq"), asyncio.Runner()
    queue = native.Queue.from_url(REDIS, name=_name())
    backend = import_module("sigra.backends.saq").SaqBackend(queue)
    worker, payload = _worker(backend)

    async def own(context: Any, **payload: Any) -> None:
        pass

    async def drain() -> None:
        functions = [("native", own), *backend.functions]
        await native.Worker(
            queue, functions, concurrency=1, burst=True, dequeue_timeout=0.01
        ).start()

    def close() -> None:
        runner.run(queue.disconnect())
        _forget(queue.name)

    return Pair(
        _drained(lambda: runner.run(worker.anew(FLAT)), lambda: runner.run(drain())),
        _drained(
            lambda: runner.run(queue.enqueue("native", kwargs=payload)),
            lambda: runner.run(drain()),
        ),
        close,
        most=256,
        least=0.2,
    )
