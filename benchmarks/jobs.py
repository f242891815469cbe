"""Pairs about jobs: inline, called directly, bound to a context, and on threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from time import perf_counter
from typing import Any

import structlog
import wrapt

import sigra
from benchmarks import byhand
from benchmarks.measure import Pair, Timed, loop, loop_two
from sigra.context import Attempt, running

BATCH = 4_000
"""Jobs that wait at once on threads at most: fewer than the queue holds."""

_numbers = itertools.count()


def make_worker(function: Callable[[Any, Any], Any] = byhand.body, **settings: Any) -> Any:
    """Return a new worker, named so that none is registered twice."""
    name = f"benchmark.{next(_numbers)}"
    return sigra.tenant_worker(name=name, **settings)(function)


def inline(args: dict[str, Any], hand: Callable[[dict[str, Any]], None]) -> Pair:
    """Compare ``.new()`` to finished on the sync backend with code written by hand."""
    worker = make_worker(backend=sigra.SyncBackend())
    if worker.new(args).state != "completed":
        raise RuntimeError("the job of the benchmark did not complete")
    return Pair(loop(worker.new, args), loop(hand, args))


def direct_call() -> Pair:
    """Compare calling the worker with a FunctionWrapper that forwards the call."""

    def forward(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    scope = sigra.AuditScope.build(actor_id="usr_81d3", organization_id="org_2f1c9a70")
    other = wrapt.FunctionWrapper(byhand.body, forward)
    return Pair(loop_two(make_worker(), scope, byhand.FLAT), loop_two(other, scope, byhand.FLAT))


def binding() -> Pair:
    """Compare what execute() does to bind a job's context with bound_contextvars."""
    job = make_worker(backend=sigra.SyncBackend()).new(byhand.FLAT)
    bound_contextvars = structlog.contextvars.bound_contextvars

    def nothing() -> None:
        pass

    def ours(_: object) -> None:
        attempt = Attempt(job, 1, 0)
        context = copy_context()
        context.run(running.set, attempt)
        context.run(nothing)

    def theirs(_: object) -> None:
        with bound_contextvars(organization_id="org", actor_id="usr", job_id="job"):
            nothing()

    return Pair(loop(ours, None), loop(theirs, None))


def thread_job(size: int = 4) -> Pair:
    """Compare jobs on the thread backend with plain functions on a ThreadPoolExecutor."""
    backend = sigra.ThreadBackend(max_workers=size)
    pool = ThreadPoolExecutor(size)

    def close() -> None:
        backend.close()
        pool.shutdown()

    return Pair(_sigra_threads(backend), _raw_threads(pool), close, BATCH, 0.02)


def thread_producers(size: int = 4) -> Pair:
    """Compare the same where as many threads enqueue at once as there are to run the jobs."""
    one = thread_job(size)
    sides = _at_once(one.ours, size), _at_once(one.floor, size)
    return Pair(*sides, one.close, one.most // size, one.least)


def _at_once(timed: Timed, size: int) -> Timed:
    """Have so many threads do the work at once; return the time divided among them."""

    def together(loops: int) -> float:
        threads = [threading.Thread(target=timed, args=(loops,)) for _ in range(size)]
        start = perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (perf_counter() - start) / size

    return together


def thread_batch(size: int = 4) -> Pair:
    """Compare ``.new_many`` with one submit for each item."""
    backend = sigra.ThreadBackend(max_workers=size)
    pool = ThreadPoolExecutor(size)
    worker = make_worker(backend=backend)

    def ours(loops: int) -> float:
        start = perf_counter()
        for job in worker.new_many([byhand.FLAT] * loops):
            job.result()
        return perf_counter() - start

    def close() -> None:
        backend.close()
        pool.shutdown()

    return Pair(ours, _raw_threads(pool), close, BATCH, 0.02)


def thread_sizes(many: int, few: int = 1) -> Pair:
    """Compare the cost of a job in a large pool with that in a small one."""
    large, small = sigra.ThreadBackend(max_workers=many), sigra.ThreadBackend(max_workers=few)

    def close() -> None:
        large.close()
        small.close()

    return Pair(_sigra_threads(large), _sigra_threads(small), close, BATCH, 0.02)


def raw_sizes(many: int, few: int = 1) -> Pair:
    """Compare the same two sizes of a ThreadPoolExecutor: what the platform itself costs."""
    large, small = ThreadPoolExecutor(many), ThreadPoolExecutor(few)

    def close() -> None:
        large.shutdown()
        small.shutdown()

    return Pair(_raw_threads(large), _raw_threads(small), close, BATCH, 0.02)


def _sigra_threads(backend: sigra.ThreadBackend) -> Timed:
    new = make_worker(backend=backend).new

    def timed(loops: int) -> float:
        start = perf_counter()
        for job in [new(byhand.FLAT) for _ in range(loops)]:
            job.result()
        return perf_counter() - start

    return timed


def _raw_threads(pool: ThreadPoolExecutor) -> Timed:
    scope, submit = byhand.scope_of(byhand.FLAT), pool.submit

    def timed(loops: int) -> float:
        start = perf_counter()
        for future in [submit(byhand.body, scope, byhand.FLAT) for _ in range(loops)]:
            future.result()
        return perf_counter() - start

    return timed
