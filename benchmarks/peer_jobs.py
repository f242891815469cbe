"""Pairs about jobs beside the tools that one would pick instead, each set up as it asks."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from threading import Event
from time import perf_counter
from typing import Any

import sigra
from benchmarks import byhand
from benchmarks.jobs import BATCH, make_worker
from benchmarks.measure import Pair, Timed, loop

_THREADS = 4
_PATIENCE = 120.0


def body(**args: Any) -> None:
    """Build the scope, as ours has it, and do nothing with it: what is measured is the way."""
    byhand.body(byhand.scope_of(args), args)


def inline(peer: Callable[[], Callable[[dict[str, Any]], object]]) -> Pair:
    """Compare ``.new()`` to finished on the sync backend with a peer's call to finished."""
    worker = make_worker(backend=sigra.SyncBackend())
    return Pair(loop(worker.new, byhand.FLAT), loop(peer(), byhand.FLAT))


def huey_immediate() -> Callable[[dict[str, Any]], object]:
    """Return a call of huey's immediate mode, to its result."""
    from huey import MemoryHuey

    task = MemoryHuey(immediate=True, store_none=True).task()(body)
    return lambda args: task(**args)()


def oban_process() -> Callable[[dict[str, Any]], object]:
    """Return a call of the function by which Oban's users test a worker in process."""
    from oban import worker
    from oban.testing import process_job

    @worker()
    class Nothing:
        async def process(self, job: Any) -> None:
            """Do what the others' function does."""
            body(**job.args)

    return lambda args: process_job(Nothing.new(args))  # type: ignore[attr-defined]


def django_immediate() -> Callable[[dict[str, Any]], object]:
    """Return an enqueue on Django's ImmediateBackend."""
    import django
    from django.conf import settings
    from django.tasks import task

    if not settings.configured:
        immediate = "django.tasks.backends.immediate.ImmediateBackend"
        settings.configure(TASKS={"default": {"BACKEND": immediate}})
        django.setup()
    native = task(body)
    return lambda args: native.enqueue(**args)


def celery_eager(call: str) -> Callable[[dict[str, Any]], object]:
    """Return Celery's ``apply`` or its eager ``delay``, to the result."""
    from celery import Celery

    app = Celery("peers", broker="memory://", backend="cache+memory://")
    app.conf.task_always_eager = True
    task = app.task(name="peers.body")(body)
    if call == "apply":
        return lambda args: task.apply(kwargs=args).get()
    return lambda args: task.delay(**args).get()


class _Counted:
    """A body that tells when it was called so many times."""

    def __init__(self) -> None:
        self.expect(1)

    def expect(self, calls: int) -> None:
        self._numbers, self._calls, self._done = itertools.count(1), calls, Event()

    def body(self, **_args: Any) -> None:
        """Count one call."""
        if next(self._numbers) == self._calls:
            self._done.set()

    def wait(self) -> None:
        if not self._done.wait(_PATIENCE):
            raise RuntimeError("the consumer did not run all that was sent")


Consumer = tuple[Callable[[int], object], Callable[[], object]]
"""Send so many jobs; end the consumer."""


def threads(peer: Callable[[_Counted], Consumer]) -> Pair:
    """Compare jobs on the thread backend with those of a peer's own consumer, as many threads."""
    ours, theirs = _Counted(), _Counted()
    backend = sigra.ThreadBackend(max_workers=_THREADS)
    worker = make_worker(lambda _scope, args: ours.body(**args), backend=backend)

    def send(jobs: int) -> None:
        for _ in range(jobs):
            worker.new(byhand.FLAT)

    peer_send, end = peer(theirs)

    def close() -> None:
        backend.close()
        end()

    return Pair(_until_done(ours, send), _until_done(theirs, peer_send), close, BATCH, 0.05)


def _until_done(counted: _Counted, send: Callable[[int], object]) -> Timed:
    def timed(loops: int) -> float:
        counted.expect(loops)
        start = perf_counter()
        send(loops)
        counted.wait()
        return perf_counter() - start

    return timed


def huey_threads(counted: _Counted) -> Consumer:
    """Start huey's consumer on a queue in memory."""
    from huey import MemoryHuey

    huey = MemoryHuey(results=False)
    task = huey.task(name="counted")(counted.body)
    consumer = huey.create_consumer(workers=_THREADS, periodic=False, initial_delay=0.001)
    logging.getLogger("huey").setLevel(logging.ERROR)
    consumer.start()

    def send(jobs: int) -> None:
        for _ in range(jobs):
            task(**byhand.FLAT)

    return send, lambda: consumer.stop(graceful=False)


def dramatiq_threads(counted: _Counted) -> Consumer:
    """Start Dramatiq's worker on its broker in memory."""
    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    broker = StubBroker()
    actor = dramatiq.actor(counted.body, actor_name="body", broker=broker)
    consumer = dramatiq.Worker(broker, worker_threads=_THREADS)
    consumer.start()

    def send(jobs: int) -> None:
        for _ in range(jobs):
            actor.send(**byhand.FLAT)

    return send, consumer.stop


def taskiq_threads(counted: _Counted) -> Consumer:
    """Start taskiq's broker in memory, which runs tasks itself."""
    from taskiq import InMemoryBroker

    def run(**args: Any) -> None:
        counted.body(**args)

    broker = InMemoryBroker(sync_tasks_pool_size=_THREADS)
    task = broker.register_task(run, task_name="peers:body")
    runner = asyncio.Runner()
    runner.run(broker.startup())

    async def kick(jobs: int) -> None:
        for _ in range(jobs):
            await task.kiq(**byhand.FLAT)
        await broker.wait_all()

    def end() -> None:
        runner.run(broker.shutdown())
        runner.close()

    return lambda jobs: runner.run(kick(jobs)), end


def celery_threads(counted: _Counted) -> Consumer:
    """Start Celery's worker with a pool of threads on a broker in memory."""
    from celery import Celery
    from celery.contrib.testing.worker import start_worker

    app = Celery("peers", broker="memory://")
    app.conf.task_ignore_result = True
    app.conf.broker_transport_options = {"polling_interval": 0.001}  # by default a second

    def run(**args: Any) -> None:
        counted.body(**args)

    task = app.task(name="peers.counted")(run)
    app.finalize()
    consumer = start_worker(
        app, pool="threads", concurrency=_THREADS, perform_ping_check=False, loglevel="ERROR"
    )
    consumer.__enter__()

    def send(jobs: int) -> None:
        for _ in range(jobs):
            task.delay(**byhand.FLAT)

    return send, lambda: consumer.__exit__(None, None, None)
