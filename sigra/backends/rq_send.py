"""Make RQ's job of one of ours, and have RQ run it later."""

from __future__ import annotations

from copy import copy
from datetime import datetime, timedelta
from typing import Any

from sigra.backends.envelope import pack
from sigra.backends.external import native
from sigra.job import Job

_rq, _redis = native("rq", "rq"), native("redis", "rq")
_NEVER = _redis.retry.Retry(_redis.backoff.NoBackoff(), 0)

CUT_OFF = timedelta(microseconds=999_999)
"""Added to due times: RQ cuts off fractions of a second, and no job may run before it is due."""

PLACE = "sigra.backends.rq"
"""The module in which every job in RQ's store looks for ``run``: it must never change."""

WORKER = "worker:"
"""What stands there before a worker's name: RQ's log, and tools that trace, show jobs by it."""

MODULE = "sigra_module"
"""The key in a job's meta for the module that defines its worker."""


def native_job(queue: Any, job: Job) -> Any:
    """Return the job as one of RQ's, which is not in its queue yet."""
    return queue.create_job(
        f"{PLACE}.{WORKER}{job.worker}",
        args=(job.worker, pack(job)),
        description=job.worker,
        job_id=job.id,
        meta={MODULE: job.definition.function.__module__},
        # For when its consumer dies: one delivery more than it may be begun, for it may not have.
        retry=_rq.Retry(max=job.options.max_attempts),
    )


def send_once(pipeline: Any, queue: Any, job_id: str) -> None:
    """Send what is in a pipeline, ``job_id`` with it; where the connection broke, have a look.

    Only if Redis has no such job is all sent again: redis-py's clients do that unseen by default,
    and jobs whose answer was lost were queued twice. Where it cannot be asked, nobody can tell.
    """
    commands, pool = [*pipeline.command_stack], _Once(pipeline.connection_pool)
    pipeline.connection_pool = pool
    try:
        pipeline.execute()
        return
    except _redis.ConnectionError:
        if not pool.has_lent or (there := _is_there(queue, job_id)) is None:
            raise
    if not there:
        pipeline.command_stack = commands
        pipeline.execute()


def _is_there(queue: Any, job_id: str) -> bool | None:
    """Tell whether Redis has a job; None where it does not say."""
    try:
        return bool(queue.job_class.exists(job_id, queue.connection))
    except _redis.RedisError:
        return None


class _Once:
    """Lend a pool's connections so that they send nothing again."""

    has_lent = False

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)  # as what traces transactions asks where they go

    def get_connection(self, *args: Any) -> Any:
        connection = self._pool.get_connection(*args)
        self._retry, connection.retry = connection.retry, _NEVER
        self.has_lent = True
        return connection

    def release(self, connection: Any) -> None:
        connection.retry = self._retry
        self._pool.release(connection)


def send(queue: Any, native: Any, due: datetime | None, pipeline: Any) -> None:
    """Have RQ run the job, at once or when it is due, once the pipeline is executed.

    A queue made with ``is_async=False`` runs it here and now: then what the pipeline writes would
    come after the job's end, and undo it.
    """
    if due is None:
        queue.enqueue_job(native, pipeline=pipeline if queue.is_async else None)
        return
    # RQ before 3.0 puts it into its schedule by the queue's connection, before the job is there.
    # A scheduler that looks meanwhile drops what is due and not there.
    later = copy(queue)
    later.connection = pipeline
    later.schedule_job(native, due + CUT_OFF, pipeline=pipeline)
