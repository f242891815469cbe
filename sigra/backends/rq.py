"""Carry jobs by RQ: each is a call of ``run``, described by its worker's name."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sigra.backend import Capability
from sigra.backends.envelope import MARK, pack
from sigra.backends.external import consume, find, native
from sigra.backends.producing import due_at, raise_not_sent, require_json

if TYPE_CHECKING:
    from sigra.job import Job

_rq = native("rq", "rq")

_RUN = f"{__name__}.run"
_MODULE, _BEGUN = "sigra_module", "sigra_begun"
_ENDLESS = 10**9
_CUT_OFF = timedelta(microseconds=999_999)
"""RQ cuts fractions of a second off, and no job runs before it is due."""


class RQBackend:
    """Send jobs through an RQ queue; ``rq worker --with-scheduler --serializer json`` runs them.

    ``queue``: the user's own, made with ``serializer="json"``; a job's option ``queue``
    names another one on the same connection. By default RQ's own default queue at
    ``RQ_REDIS_URL``. A job whose worker died comes back by RQ's maintenance; it counts as a
    failed attempt where it was begun, and not where it had only been taken. Raises
    ``ValueError`` for a queue that pickles.
    """

    name = "rq"
    capabilities: frozenset[Capability] = frozenset(
        {"queue", "delay", "run_at", "max_attempts", "backoff", "native"}
    )

    def __init__(self, queue: Any = None) -> None:
        if queue is None:
            redis = import_module("redis")
            url = os.environ.get("RQ_REDIS_URL", "redis://127.0.0.1:6379/0")
            queue = _rq.Queue(connection=redis.Redis.from_url(url), serializer="json")
        cure = "make it with Queue(..., serializer='json') and start 'rq worker --serializer json'"
        require_json(queue.serializer.dumps([1]), "this RQ queue", cure)
        self.queue = queue

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs in one transaction: all of them, or none."""
        try:
            with self.queue.connection.pipeline() as pipeline:
                for job in jobs:
                    self._put(job, pipeline)
                pipeline.execute()
        except Exception as error:
            raise_not_sent(self.name, error)
        for job in jobs:
            job.accept(native_id=job.id)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same in a thread: RQ itself only blocks."""
        await asyncio.to_thread(self.enqueue, jobs)

    def _put(self, job: Job, pipeline: Any) -> None:
        options, queue = job.options, self._queue(job.options.queue)
        native = queue.create_job(
            _RUN,
            args=(job.worker, pack(job)),
            description=job.worker,
            job_id=job.id,
            meta={_MODULE: job.definition.function.__module__},
            # For when its worker dies: one more than it may be begun, for where it was not.
            retry=_rq.Retry(max=options.max_attempts),
        )
        due = due_at(options)
        if due is None:
            queue.enqueue_job(native, pipeline=pipeline)
        else:
            queue.schedule_job(native, due + _CUT_OFF, pipeline=pipeline)

    def _queue(self, name: str | None) -> Any:
        own = self.queue
        if name is None or name == own.name:
            return own
        return type(own)(
            name,
            connection=own.connection,
            serializer=own.serializer,
            default_timeout=own._default_timeout,
        )


def run(name: str, payload: Mapping[str, Any]) -> Any:
    """Run a job of the worker ``name``: an envelope, or the plain args of a hand-built job."""
    native = _rq.get_current_job()
    left, native.retries_left = native.retries_left, 0  # what is raised here is final
    definition = find(name, native.meta.get(_MODULE))
    redis, before = native.connection, None
    if MARK in payload:
        before = redis.hincrby(native.key, _BEGUN, 1) - 1
    consumed = consume(payload, definition, RQBackend.name, native_id=native.id, deliveries=before)
    verdict = consumed.verdict
    if verdict.state in ("retryable", "scheduled"):
        following = consumed.following()
        # Saved with the job as it is queued again.
        native.args = (name, following)
        native.retries_left = following.get("max_attempts", left)
        redis.hdel(native.key, _BEGUN)
        seconds = math.ceil(verdict.delay + _CUT_OFF.total_seconds()) if verdict.delay else 0
        return _rq.Retry(max=_ENDLESS, interval=seconds)
    if verdict.error is not None:
        raise verdict.error
    return None
