"""What adapters of queues share on the consumer's side: what is done with a payload.

A consumer's task body calls ``consume`` (or ``aconsume``) and puts the verdict into the
queue's own words.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sigra import catalog
from sigra.backends.envelope import MARK, VERSION, Delivery, pack, unpack
from sigra.backends.redelivery import report_again
from sigra.context import Running
from sigra.errors import (
    EnvelopeError,
    InvalidArgsError,
    MissingExtraError,
    PoisonedJobError,
    SigraError,
    UnknownWorkerError,
)
from sigra.execute import admit, aexecute, execute
from sigra.verdict import Verdict

if TYPE_CHECKING:
    from sigra.definition import Definition

_log = logging.getLogger("sigra.job")

WAIT_FOR_DEPLOY = 30.0
"""Seconds after which a job of a newer release is looked at again."""


def native(module: str, extra: str) -> Any:
    """Import a queue's package by name, so that types are checked alike without it.

    Raises ``MissingExtraError`` naming the extra to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(extra, error.name or extra) from error


def find(worker: str, module: str | None) -> Definition:
    """Return the worker of that name; import ``module``, its own, first where need be.

    Raises ``UnknownWorkerError`` where it is not there either.
    """
    try:
        return catalog.lookup(worker)
    except UnknownWorkerError:
        if module is None:
            raise
    try:
        import_module(module)
    except ImportError as error:
        raise UnknownWorkerError(worker) from error
    return catalog.lookup(worker)


def failures_in(payload: Mapping[str, Any]) -> int:
    """Return the failed attempts that an envelope counts; 0 for a hand-built job."""
    failures = payload.get("failures") if MARK in payload else 0
    return failures if type(failures) is int else 0


@dataclass(frozen=True, slots=True)
class Consumed:
    """What came of one delivery: its verdict, and the payload to send where it goes on."""

    payload: Mapping[str, Any]
    verdict: Verdict
    delivery: Delivery | None = None

    def following(self) -> dict[str, Any]:
        """Return the payload for the next run of a retryable or snoozed job."""
        delivery = self.delivery
        if delivery is None:
            return dict(self.payload)  # not ours to change: a newer release wrote it
        retried = self.verdict.state == "retryable"
        return pack(
            delivery.job,
            failures=delivery.failures + retried,
            snoozes=delivery.snoozes + (self.verdict.state == "scheduled"),
        )


def consume(
    payload: Mapping[str, Any],
    definition: Definition,
    backend: str,
    *,
    native_id: str | None = None,
    failures: int | None = None,
    snoozes: int | None = None,
    deliveries: int | None = None,
) -> Consumed:
    """Run what a queue delivered, in this thread; never raise what the function raised.

    ``native_id``: the queue's own id, for jobs that were built by hand. ``failures``,
    ``snoozes`` and ``deliveries``: the queue's own counts of failed attempts, of snoozes
    and of earlier deliveries of this attempt, where it keeps them; else the envelope's.
    """
    begun = _begin(payload, definition, backend, native_id, failures, snoozes, deliveries)
    if isinstance(begun, Consumed):
        return begun
    delivery, attempt = begun
    return Consumed(payload, admit(attempt) or execute(attempt), delivery)


async def aconsume(
    payload: Mapping[str, Any],
    definition: Definition,
    backend: str,
    *,
    native_id: str | None = None,
    failures: int | None = None,
    snoozes: int | None = None,
    deliveries: int | None = None,
) -> Consumed:
    """Do the same as ``consume`` on this event loop; sync functions run in a thread."""
    begun = _begin(payload, definition, backend, native_id, failures, snoozes, deliveries)
    if isinstance(begun, Consumed):
        return begun
    delivery, attempt = begun
    refused = admit(attempt)
    if refused is not None:
        verdict = refused
    elif definition.is_async:
        verdict = await aexecute(attempt)
    else:
        import asyncio

        verdict = await asyncio.to_thread(execute, attempt)
    return Consumed(payload, verdict, delivery)


def refuse_positional(definition: Definition, native_id: str) -> Consumed:
    """Return what becomes of a job of the queue's own API with args by position: it ends here."""
    reason = "they came by position, and a worker takes them by name; enqueue it with .new()"
    error = InvalidArgsError("$", reason, definition.name)
    _log.error("job %s of %s was refused and ends here: %s", native_id, definition.name, error)
    return Consumed({}, Verdict("discarded", error=error))


def _begin(
    payload: Mapping[str, Any],
    definition: Definition,
    backend: str,
    native_id: str | None,
    failures: int | None,
    snoozes: int | None,
    deliveries: int | None,
) -> Consumed | tuple[Delivery, Running]:
    try:
        delivery = unpack(payload, definition, backend, native_id)
    except EnvelopeError as error:
        if error.version is not None and error.version > VERSION:
            _log.warning("a job of %s waits: %s", definition.name, error)
            return Consumed(payload, Verdict("scheduled", delay=WAIT_FOR_DEPLOY))
        return _refused(payload, definition, error)
    except SigraError as error:
        return _refused(payload, definition, error)
    delivery = Delivery(
        delivery.job,
        delivery.failures if failures is None else failures,
        delivery.snoozes if snoozes is None else snoozes,
        delivery.deliveries if deliveries is None else deliveries,
    )
    attempt = Running(delivery.job, delivery.failures + 1, delivery.snoozes)
    # A delivery that never came to an end killed its consumer: it counts as an attempt.
    if delivery.deliveries and delivery.failures + delivery.deliveries >= (
        delivery.job.options.max_attempts
    ):
        poison = PoisonedJobError(delivery.job.id, definition.name, delivery.deliveries)
        return _refused(payload, definition, poison, delivery)
    report_again(attempt, delivery.deliveries)
    return delivery, attempt


def _refused(
    payload: Mapping[str, Any],
    definition: Definition,
    error: SigraError,
    delivery: Delivery | None = None,
) -> Consumed:
    _log.error("a job of %s was refused and ends here: %s", definition.name, error)
    return Consumed(payload, Verdict("discarded", error=error), delivery)
