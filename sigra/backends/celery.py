"""Carry jobs by Celery: each worker is a task of its name in the user's own app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sigra import catalog
from sigra.backend import Capability
from sigra.backends.celery_begun import begun_before
from sigra.backends.envelope import MARK, pack
from sigra.backends.external import (
    Consumed,
    consume,
    failures_in,
    native,
    refuse_positional,
)
from sigra.backends.kombu_json import fit, unfit
from sigra.backends.producing import error_text, raise_not_sent

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.job import Job

_celery = native("celery", "celery")
_exceptions = native("celery.exceptions", "celery")
_signals = native("celery.signals", "celery")

_log = logging.getLogger("sigra.job")

_PICKLE = {"pickle", "application/x-python-serialize"}
_RETRY_POLICY = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
# ``retry_on_worker_lost``: when a child process dies, Celery sends the message again with
# one retry more, which is how such deliveries are counted. None of it retries a failure.
_TASK = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "retry_on_worker_lost": True,
    "max_retries": None,
    "default_retry_delay": 1,
    "serializer": "json",
    "ignore_result": True,  # else every .new() would talk to the result backend too
    "store_errors_even_if_ignored": True,
    "shared": False,
    "bind": True,
}


class CeleryBackend:
    """Send jobs through a Celery app; ``celery -A app worker`` runs them.

    ``app``: the user's own, whose routes, limits and other tasks stay as they are; by
    default Celery's current one. Jobs whose worker a consumer had not imported wait in
    ``unknown_queue``, for ``celery -A app worker -Q`` after the deploy. Raises
    ``ValueError`` for an app that pickles.
    """

    name = "celery"
    capabilities: frozenset[Capability] = frozenset(
        {"queue", "delay", "run_at", "max_attempts", "backoff", "native"}
    )

    def __init__(self, app: Any = None) -> None:
        self.app = _celery.current_app._get_current_object() if app is None else app
        _refuse_pickle(self.app.conf)
        self.unknown_queue = f"{self.app.conf.task_default_queue}.unknown"
        _signals.task_unknown.connect(self._keep_unknown, weak=False)
        catalog.subscribe(self._register)

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Send the jobs, over one connection; a broker that is down is tried three times."""
        try:
            with self.app.producer_or_acquire() as producer:
                for job in jobs:
                    self._send(job, producer)
                    job.accept(native_id=job.id)
        except Exception as error:
            raise_not_sent(self.name, error, jobs)

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same in a thread: Celery itself only blocks."""
        await asyncio.to_thread(self.enqueue, jobs)

    def _send(self, job: Job, producer: Any) -> None:
        options, kwargs = job.options, fit(pack(job))
        self.app.tasks[job.worker].apply_async(
            kwargs=kwargs,
            kwargsrepr=str(kwargs)[:1024],  # as Celery's own, but not as slow
            task_id=job.id,
            countdown=options.delay,
            eta=options.run_at,
            producer=producer,
            retry_policy=_RETRY_POLICY,
            **({} if options.queue is None else {"queue": options.queue}),
        )

    def _register(self, definition: Definition) -> None:
        self.app.task(_run, name=definition.name, **_TASK)

    def _keep_unknown(self, sender: Any, name: str, id: str, message: Any, **_: Any) -> None:
        """Keep a job whose worker is not imported here; Celery itself would drop it."""
        kwargs = message.payload[1]
        if sender.app is self.app and isinstance(kwargs, dict) and MARK in kwargs:
            queue = self.unknown_queue
            _log.error("job %s waits in queue %s: no worker is named %r", id, queue, name)
            retries = message.headers.get("retries") or 0
            self.app.send_task(
                name,
                kwargs=kwargs,
                task_id=id,
                queue=queue,
                retries=retries,
                serializer="json",
            )


def _run(task: Any, /, *args: Any, **kwargs: Any) -> None:
    """Be the body of every worker's task."""
    definition, native_id = catalog.lookup(task.name), task.request.id
    if args:
        consumed = refuse_positional(definition, native_id)
    else:
        payload = unfit(kwargs)
        lost = max(0, task.request.retries - failures_in(payload))
        with begun_before(task.app, task.request) as begun:
            consumed = consume(
                payload,
                definition,
                CeleryBackend.name,
                native_id=native_id,
                deliveries=lost + begun,
            )
    verdict = consumed.verdict
    if verdict.state in ("retryable", "scheduled"):
        _send_again(task, consumed)
        if verdict.state == "retryable":
            raise _exceptions.Retry(error_text(verdict.error), when=verdict.delay)
        raise _exceptions.Ignore
    if verdict.error is not None:
        # Shown as failed, and dead-lettered where the queue has an exchange for that.
        raise _exceptions.Reject(error_text(verdict.error), requeue=False)


def _send_again(task: Any, consumed: Consumed) -> None:
    """Send the next run to where this one came from, under the same id."""
    payload = consumed.following()
    again = task.signature_from_request(
        args=(),
        kwargs=fit(payload),
        countdown=consumed.verdict.delay or None,
        retries=failures_in(payload),
    )
    try:
        again.apply_async(retry_policy=_RETRY_POLICY)
    except Exception as error:
        # Not acknowledged: the broker delivers this run again when it is back.
        raise _exceptions.Reject(error_text(error), requeue=True) from error


def _refuse_pickle(conf: Any) -> None:
    accepted = set(conf.accept_content or ())
    if conf.task_serializer in _PICKLE or accepted & _PICKLE:
        raise ValueError(
            "this Celery app uses pickle, by which whoever can write to the broker runs any code "
            "in its consumers: set task_serializer='json' and accept_content=['json']"
        )
    if not accepted & {"json", "application/json"}:
        raise ValueError("this Celery app does not accept JSON: add 'json' to accept_content")
