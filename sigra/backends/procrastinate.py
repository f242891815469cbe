"""Carry jobs by procrastinate: each worker is a task of its name in the user's own app."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from sigra import catalog
from sigra.backends.external import native
from sigra.backends.loop import submit
from sigra.backends.procrastinate_insert import accept, awrite, write
from sigra.backends.procrastinate_rescue import look_for_lost
from sigra.backends.procrastinate_run import Strategy, is_ours, run
from sigra.backends.producing import able_to, is_async, require_conn, sending
from sigra.definition import Definition
from sigra.errors import EnqueueError
from sigra.execute import in_event_loop
from sigra.job import Job

_procrastinate = native("procrastinate", "procrastinate")


class ProcrastinateBackend:
    """Carry jobs through the procrastinate ``App`` that the user already has.

    Every worker becomes a native task of its own name; consumers are started by
    ``procrastinate --app=... worker``. Without ``app``, the one that the environment
    variable ``PROCRASTINATE_APP`` names. ``conn``: an open psycopg connection, sync or
    async, whose transaction the job becomes part of.

    ``rescue_after``: jobs whose worker gave no sign of life for so many seconds (it was
    killed) are run again, counted as one delivery. A periodic task on the queue
    "default" looks every ten seconds. None: the app has a rescuer of its own.
    """

    name = "procrastinate"
    capabilities = able_to("queue", "priority", "unique", "conn", "at_least_once")

    def __init__(self, app: Any = None, *, rescue_after: float | None = 30.0) -> None:
        if app is None:
            path = os.environ.get("PROCRASTINATE_APP")
            if not path:
                raise TypeError("give ProcrastinateBackend the app, or set PROCRASTINATE_APP")
            app = _procrastinate.App.from_path(path)
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        catalog.subscribe(self._register)
        if rescue_after is not None:
            look_for_lost(app, rescue_after, is_ours)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Insert all jobs in one transaction, or raise ``EnqueueError`` and insert none."""
        with sending(self.name):
            require_conn(jobs[0], "psycopg", "pgconn")
            accept(jobs, self._send(jobs))

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same without blocking the loop, whichever way the app was opened."""
        with sending(self.name):
            require_conn(jobs[0], "psycopg", "pgconn")
            accept(jobs, await self._asend(jobs))

    def _send(self, jobs: Sequence[Job]) -> Any:
        conn, connector = jobs[0].options.conn, self._app.connector.get_sync_connector()
        if conn is None:
            if not _in_loop_only(connector):
                return write(connector, jobs)
            if in_event_loop() or self._loop is None:
                reason = "the app was opened for its event loop; use await .anew(), or app.open()"
                raise EnqueueError(self.name, reason)
            return submit(self._loop, self._asend(jobs)).result()
        if is_async(conn):
            raise EnqueueError(self.name, "conn is async; use await .anew(..., conn=conn)")
        if _in_loop_only(connector):
            connector = _procrastinate.SyncPsycopgConnector()
        return write(connector, jobs, conn)

    async def _asend(self, jobs: Sequence[Job]) -> Any:
        conn, connector = jobs[0].options.conn, self._app.connector
        if conn is None and _in_loop_only(connector.get_sync_connector()):
            self._loop = asyncio.get_running_loop()
            return await awrite(connector, jobs)
        if conn is None or not is_async(conn):
            return await asyncio.to_thread(self._send, jobs)
        if not isinstance(connector, _procrastinate.PsycopgConnector):
            connector = _procrastinate.PsycopgConnector()
        return await awrite(connector, jobs, conn)

    def _register(self, definition: Definition) -> None:
        name = definition.name
        if is_ours(self._app, name):
            return  # defined anew, or a second backend: the task looks its worker up when it runs

        async def body(context: Any, /, **payload: Any) -> None:
            self._loop = asyncio.get_running_loop()
            await run(context, payload)

        self._app.task(name=name, pass_context=True, retry=Strategy())(body)


def _in_loop_only(connector: Any) -> bool:
    """Tell a connector whose pool belongs to a loop; that of the in-memory one has none."""
    base = import_module("procrastinate.connector").BaseAsyncConnector
    return isinstance(connector, base) and hasattr(type(connector), "pool")
