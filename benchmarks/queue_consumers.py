"""The two sides of a consumed job, where a queue's consumer does not end with the queue.

Each is the queue's own, in this process, started for every sample, and told to stop by the last
job's end as the queue itself announces it, to both sides alike.
"""

from __future__ import annotations

import asyncio
import logging
from importlib import import_module
from threading import Timer
from typing import Any

from benchmarks.byhand import FLAT
from benchmarks.measure import Pair
from benchmarks.queue_brokers import celery_app, taskiq_broker
from benchmarks.queue_sides import (
    drained,
    ignored,
    ignored_async,
    make_worker,
    new_database,
)
from sigra.json import dumps


def celery(url: str) -> Pair:
    """Compare with a task of Celery's own that is acknowledged as late."""
    app, close = celery_app(url)
    app.set_default()  # else its consumer looks tasks up in another
    worker, write = make_worker(import_module("sigra.backends.celery").CeleryBackend(app))
    late = {"acks_late": True, "reject_on_worker_lost": True, "ignore_result": True}
    native = app.task(ignored, name="native", **late)
    state: Any = import_module("celery.worker.state")
    loop_of: Any = import_module("kombu.asynchronous").get_event_loop
    left = 0
    logging.disable(logging.WARNING)

    def ended(**_: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            state.should_stop = 0
            # It looks at it when something comes, or after ten seconds.
            Timer(0.1, loop_of().call_soon, [bool]).start()

    import_module("celery.signals").task_postrun.connect(ended, weak=False)

    def drain(jobs: int) -> None:
        nonlocal left
        left, state.should_stop = jobs, None
        alone = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        app.WorkController(pool="solo", loglevel="ERROR", **alone).start()

    return drained(
        lambda: worker.new(FLAT), lambda: native.apply_async(kwargs=write(FLAT)), drain, close
    )


def taskiq(url: str) -> Pair:
    """Compare with a task of taskiq's own."""
    (broker, name, end), runner = taskiq_broker(url), asyncio.Runner()
    backend = import_module("sigra.backends.taskiq").TaskiqBackend(broker, queue=name)
    worker, write = make_worker(backend)
    task = broker.register_task(ignored_async, task_name="native", queue_name=name)
    receiver = import_module("taskiq.receiver").Receiver
    logging.disable(logging.WARNING)
    stop, left = asyncio.Event(), 0

    class Count(import_module("taskiq").TaskiqMiddleware):  # type: ignore[misc]
        def post_execute(self, message: Any, result: Any) -> None:
            nonlocal left
            left -= 1
            if not left:
                stop.set()

    broker.add_middlewares(Count())
    broker.is_worker_process = True
    runner.run(broker.startup())

    async def drain(jobs: int) -> None:
        nonlocal left
        left = jobs
        stop.clear()
        await receiver(broker, max_async_tasks=1, run_startup=False).listen(stop)

    return drained(
        lambda: runner.run(worker.anew(FLAT)),
        lambda: runner.run(task.kiq(**write(FLAT))),
        lambda jobs: runner.run(drain(jobs)),
        lambda: runner.run(end()),
    )


def oban() -> Pair:
    """Compare with a worker of Oban's own."""
    native, (url, drop), runner = import_module("oban"), new_database(), asyncio.Runner()
    pool = import_module("psycopg_pool").AsyncConnectionPool(url, open=False)
    worker, write = make_worker(import_module("sigra.backends.oban").ObanBackend())
    stop, left = asyncio.Event(), 0
    logging.disable(logging.WARNING)

    @native.worker()
    class Own:
        async def process(self, job: Any) -> None:
            pass

    def ended(_: str, __: dict[str, Any]) -> None:
        nonlocal left
        left -= 1
        if not left:
            stop.set()

    import_module("oban.telemetry").attach("benchmark", ["oban.job.stop"], ended)

    async def start() -> Any:
        await pool.open()
        await import_module("oban.schema").install(pool)
        return native.Oban(pool=pool)

    own = runner.run(start())

    async def drain(jobs: int) -> None:
        nonlocal left
        left = jobs
        stop.clear()
        async with native.Oban(pool=pool, queues={"default": 10}, name="consumer"):
            await stop.wait()

    def close() -> None:
        runner.run(pool.close())
        drop()

    return drained(
        lambda: runner.run(worker.anew(FLAT)),
        lambda: runner.run(own.enqueue(Own.new(write(FLAT)))),  # type: ignore[attr-defined]
        lambda jobs: runner.run(drain(jobs)),
        close,
    )


def pgqueuer() -> Pair:
    """Compare with an entrypoint of PgQueuer's own, in the mode that ends with the queue."""
    native, (url, drop), runner = import_module("pgqueuer"), new_database(), asyncio.Runner()
    backend = import_module("sigra.backends.pgqueuer").PgQueuerBackend
    mode = import_module("pgqueuer.types").QueueExecutionMode.drain
    conn = runner.run(import_module("asyncpg").connect(url))
    queries = import_module("pgqueuer.queries").Queries(native.AsyncpgDriver(conn))
    runner.run(queries.install())
    worker, write = make_worker(backend(queries))
    logging.disable(logging.WARNING)

    async def ignored_job(job: Any) -> None:
        pass

    async def drain() -> None:
        consumer = native.PgQueuer(native.AsyncpgDriver(conn))
        backend(consumer)
        consumer.entrypoint("native")(ignored_job)
        await consumer.qm.run(mode=mode)

    def close() -> None:
        runner.run(conn.close())
        drop()

    return drained(
        lambda: runner.run(worker.anew(FLAT)),
        lambda: runner.run(queries.enqueue("native", dumps(write(FLAT)))),
        lambda _: runner.run(drain()),
        close,
    )
