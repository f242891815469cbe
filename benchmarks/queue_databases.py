"""The two sides of an enqueue into a database, and of a job that a consumer runs."""

from __future__ import annotations

import asyncio
import logging
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from benchmarks import queue_sides
from benchmarks.byhand import FLAT
from benchmarks.measure import Pair
from benchmarks.queue_brokers import huey_sides
from benchmarks.queue_sides import (
    awaited,
    called,
    drained,
    ignored,
    make_worker,
    new_database,
)
from sigra.json import dumps


def procrastinate() -> Pair:
    """Compare with ``task.defer``."""
    native, (url, drop) = import_module("procrastinate"), new_database()
    app = native.App(connector=native.SyncPsycopgConnector(conninfo=url))
    app.open()
    app.schema_manager.apply_schema()
    backend_module = import_module("sigra.backends.procrastinate")
    worker, write = make_worker(backend_module.ProcrastinateBackend(app))
    task = app.task(name="native")(ignored)

    def close() -> None:
        app.close()
        drop()

    return called(lambda: worker.new(FLAT), lambda: task.defer(**write(FLAT)), close)


def procrastinate_consumed() -> Pair:
    """Compare with a task of procrastinate's own, run by a worker in this process."""
    native, (url, drop), runner = import_module("procrastinate"), new_database(), asyncio.Runner()
    app = native.App(connector=native.PsycopgConnector(conninfo=url))

    async def start() -> None:
        await app.open_async()
        await app.schema_manager.apply_schema_async()

    runner.run(start())
    module = import_module("sigra.backends.procrastinate")
    worker, write = make_worker(module.ProcrastinateBackend(app, rescue_after=None))
    task = app.task(name="native")(ignored)
    logging.disable(logging.WARNING)

    async def drain() -> None:
        await app.run_worker_async(
            wait=False, install_signal_handlers=False, listen_notify=False, concurrency=1
        )

    def close() -> None:
        runner.run(app.close_async())
        drop()

    return drained(
        lambda: runner.run(worker.anew(FLAT)),
        lambda: runner.run(task.defer_async(**write(FLAT))),
        lambda _: runner.run(drain()),
        close,
    )


def oban() -> Pair:
    """Compare with ``await oban.enqueue``."""
    native, (url, drop), runner = import_module("oban"), new_database(), asyncio.Runner()
    pool = import_module("psycopg_pool").AsyncConnectionPool(url, open=False)
    worker, write = make_worker(import_module("sigra.backends.oban").ObanBackend())

    async def start() -> Any:
        await pool.open()
        await import_module("oban.schema").install(pool)
        return native.Oban(pool=pool)

    def close() -> None:
        runner.run(pool.close())
        drop()

    own = runner.run(start())
    return awaited(
        runner,
        lambda: worker.anew(FLAT),
        lambda: own.enqueue(native.Job("native", args=write(FLAT))),
        close,
    )


def pgqueuer() -> Pair:
    """Compare with ``await queries.enqueue`` of a payload that is written as Sigra writes it."""
    native, (url, drop), runner = import_module("pgqueuer"), new_database(), asyncio.Runner()
    conn = runner.run(import_module("asyncpg").connect(url))
    queries = import_module("pgqueuer.queries").Queries(native.AsyncpgDriver(conn))
    runner.run(queries.install())
    worker, write = make_worker(import_module("sigra.backends.pgqueuer").PgQueuerBackend(queries))

    def close() -> None:
        runner.run(conn.close())
        drop()

    return awaited(
        runner,
        lambda: worker.anew(FLAT),
        lambda: queries.enqueue("native", dumps(write(FLAT))),
        close,
    )


def django(*, consumed: bool = False) -> Pair:
    """Compare with ``task.enqueue``, or with a task of Django's that ``db_worker`` runs."""
    (url, drop), conf = new_database(), import_module("django.conf")
    parts = urlsplit(url)
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:]}
    database |= {"HOST": parts.hostname, "PORT": parts.port or 5432}
    database |= {"USER": parts.username or "", "PASSWORD": parts.password or ""}
    conf.settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=["django_tasks_db"],
        TASKS={"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
        USE_TZ=True,
    )
    import_module("django").setup()
    import_module("django.core.management").call_command("migrate", verbosity=0)
    logging.disable(logging.WARNING)
    worker, write = make_worker(import_module("sigra.backends.django").DjangoBackend())
    # Django finds a task by where its function is defined.
    task = queue_sides.ignored = import_module("django.tasks").task(ignored)  # type: ignore[assignment]

    def close() -> None:
        import_module("django.db").connection.close()
        drop()

    def drain(_: int) -> None:
        command = import_module("django_tasks_db.management.commands.db_worker")
        command.Worker(
            queue_names=["default"],
            interval=0,
            batch=True,
            backend_name="default",
            startup_delay=False,
            max_tasks=None,
            worker_id="benchmark",
            excluded_queue_names=[],
        ).run()

    ours, theirs = (lambda: worker.new(FLAT)), (lambda: task.enqueue(**write(FLAT)))
    return drained(ours, theirs, drain, close) if consumed else called(ours, theirs, close)


def huey(*, consumed: bool = False) -> Pair:
    """Compare on Sigra's own SQLite file, from which a killed consumer loses no job."""
    module, folder = import_module("sigra.backends.huey"), TemporaryDirectory()
    storage = {"storage_class": module.FileStorage, "filename": f"{folder.name}/queue.db"}
    own = import_module("huey").Huey(
        "benchmark", serializer=module.JSONSerializer(), results=False, **storage
    )
    logging.disable(logging.WARNING)

    def close() -> None:
        own.storage.close()
        folder.cleanup()

    return huey_sides(module.HueyBackend(own), close, consumed=consumed)
