"""The app that the tests' consumer loads: ``procrastinate --app=procrastinate_app.app``."""

import asyncio
import os
import time

import procrastinate

from sigra import tenant_worker
from sigra.backends.procrastinate import ProcrastinateBackend
from sigra.config import configure
from sigra.testing import contract_workers

app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=os.environ["SIGRA_TEST_PROCRASTINATE"], timeout=5
    ),
    worker_defaults={"fetch_job_polling_interval": 0.2, "update_heartbeat_interval": 0.5},
)
backend = ProcrastinateBackend(app, rescue_after=2)


@tenant_worker(name="queues.parent")
def parent(scope, args):
    """Enqueue from a thread of the worker, whose app was opened in its loop."""
    contract_workers.echo.new({**args, "by": "thread"})


@tenant_worker(name="queues.parent_async")
async def parent_async(scope, args):
    await contract_workers.echo.anew({**args, "by": "loop"})


@tenant_worker(name="queues.sleeper")
async def sleeper(scope, args, job, seconds):
    contract_workers._record(scope, args)
    await asyncio.sleep(seconds)


@tenant_worker(name="queues.counted")
def counted(scope, args):
    contract_workers._record(scope, args)
    time.sleep(0.02)


@app.task(name="queues.native")
def native(path):
    """A task of the user's own stays as it is."""
    with open(path, "w") as file:
        file.write("ran")


if os.environ.get("SIGRA_CONSUMER"):
    configure(backend=backend)
    contract_workers.record_events()
