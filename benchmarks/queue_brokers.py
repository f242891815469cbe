"""The two sides of an enqueue through a broker, and of a job that a consumer runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

from benchmarks.byhand import FLAT
from benchmarks.measure import Pair
from benchmarks.queue_sides import (
    REDIS,
    awaited,
    called,
    drained,
    forget,
    ignored,
    ignored_async,
    make_worker,
    new_name,
    nothing,
    redis_client,
)


def rq(batch: int = 0) -> Pair:
    """Compare with ``queue.enqueue``, or a batch with ``queue.enqueue_many``."""
    native = import_module("rq")
    backend_module = import_module("sigra.backends.rq")
    queue = native.Queue(new_name(), connection=redis_client(), serializer="json")
    worker, write = make_worker(backend_module.RQBackend(queue))
    function, items = backend_module.run, [FLAT] * batch

    def close() -> None:
        queue.delete(delete_jobs=True)
        forget(queue.name)

    def enqueue_many() -> None:
        prepare = queue.prepare_data
        queue.enqueue_many([prepare(function, args=(worker.name, write(FLAT))) for _ in items])

    if batch:
        return called(lambda: worker.new_many(items), enqueue_many, close)
    return called(
        lambda: worker.new(FLAT), lambda: queue.enqueue(function, worker.name, write(FLAT)), close
    )


def rq_consumed() -> Pair:
    """Compare with a function of RQ's own, run by a worker in this process."""
    native = import_module("rq")
    backend_module = import_module("sigra.backends.rq")
    logging.disable(logging.WARNING)
    queue = native.Queue(new_name(), connection=redis_client(), serializer="json")
    worker, write = make_worker(backend_module.RQBackend(queue))
    consumer = native.SimpleWorker([queue], connection=queue.connection, serializer="json")

    def drain(_: int) -> None:
        consumer.work(burst=True, logging_level="ERROR")

    return drained(
        lambda: worker.new(FLAT),
        lambda: queue.enqueue("benchmarks.queue_sides.nothing", write(FLAT)),
        drain,
        lambda: (queue.delete(delete_jobs=True), forget(queue.name)),
    )


def note_queues(name: str) -> list[str]:
    """Return the queues on RabbitMQ in which the notes of a queue's jobs are."""
    slots = import_module("sigra.backends.rabbitmq_notes").SLOTS
    return [f"{name}.begun.{slot}" for slot in range(slots)]


def celery_app(url: str) -> tuple[Any, Callable[[], None]]:
    """Return an app with a queue of its own, and what removes it."""
    name = new_name()
    app = import_module("celery").Celery(broker=url, set_as_current=False)
    confirmed = {"broker_transport_options": {"confirm_publish": True}} if url != REDIS else {}
    app.conf.update(task_default_queue=name, **confirmed)

    def close() -> None:
        with app.connection_for_write() as connection:
            connection.default_channel.queue_purge(name)
            for queue in (name, *note_queues(name)):
                connection.default_channel.queue_delete(queue)
        app.close()
        if url == REDIS:
            forget(name)

    return app, close


def celery(url: str) -> Pair:
    """Compare with ``task.apply_async``."""
    app, close = celery_app(url)
    backend = import_module("sigra.backends.celery").CeleryBackend(app)
    worker, write = make_worker(backend)
    native = app.task(ignored, name="native", ignore_result=True)
    return called(lambda: worker.new(FLAT), lambda: native.apply_async(kwargs=write(FLAT)), close)


def dramatiq(url: str, *, consumed: bool = False) -> Pair:
    """Compare with ``actor.send``, or with an actor that a worker in this process runs."""
    native, name = import_module("dramatiq"), new_name()
    if url == REDIS:
        broker = import_module("dramatiq.brokers.redis").RedisBroker(url=url, namespace=name)
    else:
        broker = import_module("dramatiq.brokers.rabbitmq").RabbitmqBroker(
            url=url.removesuffix("//") + "/%2F" if url.endswith("//") else url
        )
    backend = import_module("sigra.backends.dramatiq").DramatiqBackend(broker, queue=name)
    worker, write = make_worker(backend)
    actor = native.actor(ignored, actor_name="native", queue_name=name, broker=broker)
    middleware = list(broker.middleware)

    def close() -> None:
        if url == REDIS:
            forget(name)
            return
        for queue in (name, f"{name}.DQ", f"{name}.XQ", *note_queues(name)):
            broker.channel.queue_delete(queue)
        broker.close()

    def drain(_: int) -> None:
        broker.middleware[:] = middleware  # without that of the consumer before
        consumer = native.Worker(broker, worker_timeout=100, worker_threads=1, queues={name})
        consumer.start()
        broker.join(name)
        consumer.join()
        consumer.stop()

    ours, theirs = (lambda: worker.new(FLAT)), (lambda: actor.send(**write(FLAT)))
    return drained(ours, theirs, drain, close) if consumed else called(ours, theirs, close)


def huey(*, consumed: bool = False) -> Pair:
    """Compare with a call of huey's own task, or with one that it runs."""
    native, name = import_module("huey"), new_name().replace("_", "")
    module = import_module("sigra.backends.huey")
    logging.disable(logging.WARNING)
    own = native.RedisHuey(name, url=REDIS, serializer=module.JSONSerializer(), results=False)
    return huey_sides(module.HueyBackend(own), lambda: forget(name), consumed=consumed)


def huey_sides(backend: Any, close: Any, *, consumed: bool) -> Pair:
    """Compare on a huey, wherever it keeps its tasks."""
    own = backend.huey
    worker, write = make_worker(backend)
    task = own.task(name="native")(nothing)

    def drain(_: int) -> None:
        while (one := own.dequeue()) is not None:
            own.execute(one)

    ours, theirs = (lambda: worker.new(FLAT)), (lambda: task(write(FLAT)))
    return drained(ours, theirs, drain, close) if consumed else called(ours, theirs, close)


def saq() -> Pair:
    """Compare with ``await queue.enqueue``."""
    native, runner = import_module("saq"), asyncio.Runner()
    queue = native.Queue.from_url(REDIS, name=new_name())
    worker, write = make_worker(import_module("sigra.backends.saq").SaqBackend(queue))

    def close() -> None:
        runner.run(queue.disconnect())
        forget(queue.name)

    return awaited(
        runner,
        lambda: worker.anew(FLAT),
        lambda: queue.enqueue("native", kwargs=write(FLAT)),
        close,
    )


def saq_consumed() -> Pair:
    """Compare with a function of SAQ's own, run by a worker in this process."""
    native, runner = import_module("saq"), asyncio.Runner()
    queue = native.Queue.from_url(REDIS, name=new_name())
    backend = import_module("sigra.backends.saq").SaqBackend(queue)
    worker, write = make_worker(backend)

    async def own(context: Any, **payload: Any) -> None:
        pass

    async def drain() -> None:
        functions = [("native", own), *backend.functions]
        await native.Worker(
            queue, functions, concurrency=1, burst=True, dequeue_timeout=0.01
        ).start()

    def close() -> None:
        runner.run(queue.disconnect())
        forget(queue.name)

    return drained(
        lambda: runner.run(worker.anew(FLAT)),
        lambda: runner.run(queue.enqueue("native", kwargs=write(FLAT))),
        lambda _: runner.run(drain()),
        close,
    )


def taskiq_broker(url: str) -> tuple[Any, str, Callable[[], Coroutine[Any, Any, None]]]:
    """Return a broker with a queue of its own, the queue's name, and what ends both."""
    name = new_name()
    if url == REDIS:
        broker = import_module("taskiq_redis").RedisStreamBroker(url, queue_name=name)
    else:
        rabbitmq = import_module("taskiq_aio_pika")
        queues = {"task_queues": [rabbitmq.Queue(name=name)]}
        own = {"dead_letter_queue": rabbitmq.Queue(name=f"{name}-dead")}
        broker = rabbitmq.AioPikaBroker(url, exchange=rabbitmq.Exchange(name=name), **queues, **own)

    async def end() -> None:
        if url != REDIS:
            channel = broker.write_channel
            for queue in (name, f"{name}-dead"):
                await channel.queue_delete(queue)
            await channel.exchange_delete(name)
        await broker.shutdown()
        forget(name)

    return broker, name, end


def taskiq(url: str) -> Pair:
    """Compare with ``await task.kiq``."""
    (broker, name, end), runner = taskiq_broker(url), asyncio.Runner()
    backend = import_module("sigra.backends.taskiq").TaskiqBackend(broker, queue=name)
    worker, write = make_worker(backend)
    task = broker.register_task(ignored_async, task_name="native", queue_name=name)
    runner.run(broker.startup())

    def close() -> None:
        runner.run(end())

    return awaited(runner, lambda: worker.anew(FLAT), lambda: task.kiq(**write(FLAT)), close)
