"""Send jobs through procrastinate: PostgreSQL as the queue, and its own worker command."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sigra import catalog
from sigra.backend import SCHEDULING, Capability
from sigra.backends.external import Consumed, aconsume, failures_in, native
from sigra.backends.jsonb import fit, unfit
from sigra.backends.procrastinate_insert import insert
from sigra.backends.producing import is_async, raise_not_sent, unique_key
from sigra.errors import EnqueueError
from sigra.execute import in_event_loop

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.job import Job

procrastinate = native("procrastinate", "procrastinate")

RESCUE = "sigra.rescue"
"""The periodic task that brings back the jobs of a worker that died."""

_COUNT = """
UPDATE procrastinate_jobs SET args = %(args)s::jsonb, attempts = %(attempts)s
WHERE id = %(id)s AND status = 'doing'
"""
_FORGET = "DELETE FROM procrastinate_jobs WHERE task_name = %(name)s AND status = 'succeeded'"


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
    capabilities = frozenset[Capability]((*SCHEDULING, "conn", "native"))

    def __init__(self, app: Any = None, *, rescue_after: float | None = 30.0) -> None:
        if app is None:
            path = os.environ.get("PROCRASTINATE_APP")
            if not path:
                raise TypeError("give ProcrastinateBackend the app, or set PROCRASTINATE_APP")
            app = procrastinate.App.from_path(path)
        self._app, self._rescue_after = app, rescue_after
        self._loop: asyncio.AbstractEventLoop | None = None
        catalog.subscribe(self._register)
        if rescue_after is not None and RESCUE not in app.tasks:
            task = app.task(name=RESCUE, queueing_lock=RESCUE, pass_context=True)(self._rescue)
            app.periodic(cron="* * * * * */10")(task)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Insert all jobs in one statement, or raise ``EnqueueError`` and insert none."""
        try:
            _accept(jobs, self._send(jobs))
        except Exception as error:
            raise_not_sent(self.name, error)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same without blocking the loop, whichever way the app was opened."""
        try:
            _accept(jobs, await self._asend(jobs))
        except Exception as error:
            raise_not_sent(self.name, error)

    def _send(self, jobs: Sequence[Job]) -> Any:
        conn, connector = jobs[0].options.conn, self._app.connector.get_sync_connector()
        if conn is None:
            if _in_loop_only(connector):
                return self._send_from_thread(jobs)
            return connector.execute_query_all(**insert(jobs))
        if is_async(conn):
            raise EnqueueError(self.name, "conn is async; use await .anew(..., conn=conn)")
        if _in_loop_only(connector):
            connector = procrastinate.SyncPsycopgConnector()
        return connector.execute_query_all_with_connection(conn, **insert(jobs))

    async def _asend(self, jobs: Sequence[Job]) -> Any:
        conn, connector = jobs[0].options.conn, self._app.connector
        if conn is None and _in_loop_only(connector.get_sync_connector()):
            self._loop = asyncio.get_running_loop()
            return await connector.execute_query_all_async(**insert(jobs))
        if conn is None or not is_async(conn):
            return await asyncio.to_thread(self._send, jobs)
        if not isinstance(connector, procrastinate.PsycopgConnector):
            connector = procrastinate.PsycopgConnector()
        return await connector.execute_query_all_async_with_connection(conn, **insert(jobs))

    def _send_from_thread(self, jobs: Sequence[Job]) -> Any:
        """Use the pool of an app that was opened in a loop, from a thread beside it."""
        loop = self._loop
        if in_event_loop() or loop is None or not loop.is_running():
            reason = "the app was opened for its event loop; use await .anew(), or app.open()"
            raise EnqueueError(self.name, reason)
        return asyncio.run_coroutine_threadsafe(self._asend(jobs), loop).result()

    def _register(self, definition: Definition) -> None:
        name = definition.name
        if _is_ours(self._app, name):
            return  # defined anew, or a second backend: the task looks its worker up when it runs

        async def run(context: Any, /, **payload: Any) -> None:
            await self._run(name, context, payload)

        self._app.task(name=name, pass_context=True, retry=_Strategy())(run)

    async def _run(self, name: str, context: Any, payload: dict[str, Any]) -> None:
        self._loop = asyncio.get_running_loop()
        native, payload = context.job, unfit(payload)
        definition = catalog.lookup(name)
        work = asyncio.ensure_future(
            aconsume(
                payload,
                definition,
                self.name,
                native_id=str(native.id),
                # Our own verdicts keep both counts equal; a rescue raises the native one.
                deliveries=max(0, native.attempts - failures_in(payload)),
            )
        )
        try:
            consumed = await (work if definition.is_async else asyncio.shield(work))
        except asyncio.CancelledError:
            if definition.is_async:
                reason = context.abort_reason()
                if reason is None or reason.value != "shutdown":
                    raise
                await _note(context, payload, native.attempts)
                raise _AgainError(0.0) from None
            consumed = await work  # nothing ends a thread: what comes of it counts
        await _translate(context, consumed)

    async def _rescue(self, context: Any, timestamp: int) -> None:  # noqa: ARG002
        manager = context.app.job_manager
        stalled = await manager.get_stalled_jobs(seconds_since_heartbeat=self._rescue_after)
        for job in stalled:
            if _is_ours(context.app, job.task_name):
                await manager.retry_job(job)
        await context.app.connector.execute_query_async(_FORGET, name=RESCUE)


async def _translate(context: Any, consumed: Consumed) -> None:
    verdict = consumed.verdict
    if verdict.state in ("retryable", "scheduled"):
        payload = consumed.following()
        attempts = payload["failures"] if consumed.delivery else context.job.attempts
        await _note(context, payload, attempts)
        raise _AgainError(verdict.delay) from verdict.error
    if verdict.state == "cancelled":
        raise procrastinate.exceptions.JobAborted(str(verdict.error)) from verdict.error
    verdict.unwrap()


async def _note(context: Any, payload: Mapping[str, Any], attempts: int) -> None:
    """Write what the next run has to know; the retry that follows adds one to attempts."""
    await context.app.connector.execute_query_async(
        _COUNT, args=fit(payload), attempts=attempts - 1, id=context.job.id
    )


class _AgainError(Exception):
    """Have the job run again after so many seconds."""


class _Strategy:
    """Procrastinate retries what a verdict says, and nothing else."""

    def get_retry_exception(self, exception: BaseException, job: Any) -> Any:  # noqa: ARG002
        if not isinstance(exception, _AgainError):
            return None
        decision = procrastinate.RetryDecision(retry_in={"seconds": exception.args[0]})
        return procrastinate.exceptions.JobRetry(decision)


def _is_ours(app: Any, name: str) -> bool:
    return name in app.tasks and isinstance(app.tasks[name].retry_strategy, _Strategy)


def _accept(jobs: Sequence[Job], rows: Sequence[Mapping[str, Any]]) -> None:
    if jobs[0].options.unique is None:
        for job, row in zip(jobs, rows, strict=True):
            job.accept(native_id=str(row["id"]))
        return
    # One row for each lock that was free, and so for the first job that asked for it.
    ids = {row["queueing_lock"]: str(row["id"]) for row in rows}
    for job in jobs:
        native_id = ids.pop(unique_key(job), None)
        job.accept(native_id=native_id, duplicate=native_id is None)


def _in_loop_only(connector: Any) -> bool:
    """Tell a connector whose pool belongs to a loop; that of the in-memory one has none."""
    base = import_module("procrastinate.connector").BaseAsyncConnector
    return isinstance(connector, base) and hasattr(type(connector), "pool")
