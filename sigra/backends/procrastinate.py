"""Carry jobs by procrastinate: each worker is a task of its name in the user's own app."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from sigra.backends.external import native
from sigra.backends.loop import of_plain_task, one_that_runs, outcome, submit
from sigra.backends.procrastinate_insert import accept_rows, awrite, commits, in_loop_only, write
from sigra.backends.procrastinate_rescue import look_for_lost
from sigra.backends.procrastinate_run import is_ours
from sigra.backends.procrastinate_start import add, refuse_jsonpickle, watch_start
from sigra.backends.producing import able_to, is_async, sending
from sigra.backends.registering import expect, register_with
from sigra.definition import Definition
from sigra.errors import EnqueueError
from sigra.execute import in_event_loop
from sigra.job import Job

_procrastinate = native("procrastinate", "procrastinate")


class ProcrastinateBackend:
    """Send jobs through a procrastinate app; ``procrastinate --app=... worker`` runs them.

    ``app``: your own; by default the one that the environment variable ``PROCRASTINATE_APP``
    names. ``rescue_after``: after so many seconds without a heartbeat a consumer counts as
    killed, and its jobs run again, counted as one delivery; None: the app has a rescuer of
    its own. ``conn``: an open connection of psycopg, sync or async.
    """

    name = "procrastinate"
    capabilities = able_to("queue", "priority", "unique", "conn", "at_least_once")

    def __init__(self, app: Any = None, *, rescue_after: float | None = 30.0) -> None:
        if app is None:
            path = os.environ.get("PROCRASTINATE_APP")
            if not path:
                raise TypeError("give ProcrastinateBackend the app, or set PROCRASTINATE_APP")
            app = _procrastinate.App.from_path(path)
        self._app = expect(app, "connector", "ProcrastinateBackend takes an App")
        refuse_jsonpickle(app.connector)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entered = partial(setattr, self, "_loop")
        register_with(app, self._register)
        watch_start(app, self._entered)
        look_for_lost(app, rescue_after, is_ours)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Insert all jobs in one transaction, or raise ``EnqueueError`` and insert none."""
        with sending(self.name):
            alone = jobs[0].options.conn is None and commits(self._app.connector)
        with sending(self.name, jobs, whole=True, commits=alone):
            conn, connector = jobs[0].options.conn, self._app.connector.get_sync_connector()
            if conn is not None or not in_loop_only(connector):
                accept_rows(jobs, write(connector, jobs, conn))
            elif in_event_loop() or (loop := self._loop or of_plain_task()) is None:
                reason = "the app was opened for its event loop; use await .anew(), or app.open()"
                raise EnqueueError(self.name, reason)
            else:
                outcome(loop, submit(loop, self.aenqueue(jobs)))

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same without blocking the loop, whichever way the app was opened."""
        with sending(self.name, jobs, whole=True):
            conn, connector = jobs[0].options.conn, self._app.connector
            if conn is None and in_loop_only(connector.get_sync_connector()):
                self._loop = one_that_runs(self._loop)
            elif conn is None or not is_async(conn):
                await asyncio.to_thread(self.enqueue, jobs)
                return
            accept_rows(jobs, await awrite(connector, jobs, conn))

    def _register(self, definition: Definition) -> None:
        if not is_ours(self._app, definition.name):  # else its task looks it up when it runs
            add(self._app, definition.name, self._entered)
