"""The app that the tests' consumer loads: ``procrastinate --app=procrastinate_app.app``."""

from __future__ import annotations

import asyncio
import os

import consumer_side
import procrastinate

from sigra import configure, tenant_worker
from sigra.backends.procrastinate import ProcrastinateBackend
from sigra.testing import contract_workers

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=consumer_side.URL, timeout=5),
    worker_defaults={"fetch_job_polling_interval": 0.2, "update_heartbeat_interval": 0.5},
)
backend = ProcrastinateBackend(app, rescue_after=6)
app.task(name="native.note")(consumer_side.note)


@app.task(name="native.hands_over")
def hands_over(**args):
    """Make a worker's job of a native one, as a plain task whose app was opened in a loop."""
    contract_workers.echo.new(args)


@tenant_worker(name="queues.parent")
def parent(scope, args):
    """Enqueue from a thread of the worker, whose app was opened in its loop."""
    contract_workers.echo.new({**args, "by": "thread"})


@tenant_worker(name="queues.parent_async")
async def parent_async(scope, args):
    await contract_workers.echo.anew({**args, "by": "loop"})


@tenant_worker(name="queues.aborts")
def aborts(scope, cancelled):
    """Fail by procrastinate's own word for an abort, or by Python's."""
    raise asyncio.CancelledError if cancelled else procrastinate.exceptions.JobAborted("said so")


@tenant_worker(name="queues.sleeper")
async def sleeper(scope, args, seconds):
    contract_workers.record(scope, args)
    await asyncio.sleep(seconds)


if os.environ.get("SIGRA_TEST_CONSUMER"):
    configure(backend=backend)
