"""What the adapters share on the consumer's side: from a payload to a verdict.

A consumer's task body calls ``consume`` (or ``aconsume``) and then passes the verdict on through
the queue's own API.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypedDict, Unpack

from sigra import catalog
from sigra.backends.begin import Note, execute_noted
from sigra.backends.envelope import MARK, VERSION, Delivery, pack, unpack
from sigra.backends.orm_thread import execute_in_consumer
from sigra.backends.redelivery import note_end, report_again
from sigra.conclude import named_in_logs
from sigra.context import Attempt
from sigra.definition import Definition
from sigra.errors import (
    EnvelopeError,
    InvalidArgsError,
    MissingExtraError,
    PoisonedJobError,
    SigraError,
    UnknownWorkerError,
    brief,
)
from sigra.execute import admit
from sigra.job import FINISHED, Job
from sigra.verdict import Verdict

_log = logging.getLogger("sigra.job")

WAIT_FOR_DEPLOY = 30.0
"""Seconds after which a job of a newer release, or of an unknown worker, is tried again."""

ENDED = "ended"
"""The envelope's field with the number of runs that the queue had counted when the job ended, for a
run by hand. It is not signed: whoever can write it can also write the queue's own count."""


def consume(
    payload: Mapping[str, Any],
    worker: Definition | str,
    backend: str,
    *,
    native_id: str | None = None,
    cut_off: Callable[[], str] = str,
    execute: Callable[[Attempt], Verdict] = execute_in_consumer,
    **counts: Unpack[Counts],
) -> Consumed:
    """Run what a queue delivered, in this thread; never raise what the worker's function raised.

    ``worker``: its definition, or its name; if no worker has that name, the job waits for a
    deploy. ``native_id``: the queue's own id, for jobs that were built by hand. ``cut_off``:
    returns words for the log line if the consumer itself has cut the run off and settles the
    job, otherwise "". ``execute``: runs the attempt.
    """
    delivery, begun = _begin(payload, worker, backend, native_id, counts)
    if isinstance(begun, Verdict):
        return _consumed(payload, begun, delivery)
    begun.cut_off = cut_off
    return _consumed(payload, execute(begun), delivery)


async def aconsume(
    payload: Mapping[str, Any],
    worker: Definition | str,
    backend: str,
    *,
    native_id: str | None = None,
    cut_off: Callable[[], str] = str,
    note: Note | None = None,
    waits: Note | None = None,
    **counts: Unpack[Counts],
) -> Consumed:
    """Do the same as ``consume`` on this event loop; sync functions run in a thread.

    ``note`` is awaited right before the body, not while the job waits for a thread. ``waits`` is
    for a queue that counts a job as begun when it is delivered: it is awaited if the job has to
    wait, and ``note`` only then. A job that is cut off while its begin is noted waits again.
    """
    delivery, begun = _begin(payload, worker, backend, native_id, counts)
    if isinstance(begun, Verdict):
        return _consumed(payload, begun, delivery)
    begun.cut_off = cut_off
    return _consumed(payload, await execute_noted(begun, note, waits), delivery)


def _begin(
    payload: Mapping[str, Any],
    worker: Definition | str,
    backend: str,
    native_id: str | None,
    counts: Counts,
) -> tuple[Delivery | None, Attempt | Verdict]:
    """Return what was delivered, and the attempt to run, or a verdict if none is to run."""
    name = worker if isinstance(worker, str) else worker.name
    try:
        definition = catalog.lookup(worker) if isinstance(worker, str) else worker
        delivery = _counted(unpack(payload, definition, backend, native_id), **counts)
    except UnknownWorkerError as error:
        _log.error("job %s waits for a consumer with its worker: %s", brief(native_id), error)
        return None, Verdict("scheduled", error=error, delay=WAIT_FOR_DEPLOY)
    except SigraError as error:
        if isinstance(error, EnvelopeError) and (error.version or 0) > VERSION:
            _log.warning("job %s of %s waits: %s", brief(native_id), name, error)
            return None, Verdict("scheduled", delay=WAIT_FOR_DEPLOY)
        return None, _refused(name, error, native_id)
    # An earlier delivery that did not end may have killed its consumer: it counts as an attempt.
    job, lost = delivery.job, delivery.lost + delivery.deliveries
    if lost and delivery.failures + lost >= job.options.max_attempts:
        return delivery, _refused(name, PoisonedJobError(job.id, name, lost), native_id, job)
    attempt = Attempt(job, delivery.failures + 1, delivery.snoozes, lost=lost)
    report_again(attempt, delivery.deliveries)
    return delivery, admit(attempt) or attempt


def _counted(found: Delivery, **counts: Unpack[Counts]) -> Delivery:
    known: Any = {name: count for name, count in counts.items() if count is not None}
    if any(type(count) is not int or count < 0 for count in known.values()):
        raise EnvelopeError("a count that its queue keeps is not a whole number")
    return replace(found, **known) if known else found


def _refused(worker: str, error: SigraError, native: str | None, job: Job | None = None) -> Verdict:
    if isinstance(error, InvalidArgsError):  # it names the worker wherever it was found
        error = InvalidArgsError(error.path, error.reason, worker)
    what = "a job" if native is None else f"job {brief(native)}"
    facts = {**(named_in_logs(job)[1] if job else {}), "worker": worker, "native_id": native}
    _log.error("%s was refused and ends here: %s", f"{what} of {worker}", error, extra=facts)
    return Verdict("discarded", error=error)


def _consumed(payload: Mapping[str, Any], verdict: Verdict, delivery: Delivery | None) -> Consumed:
    if delivery is not None and verdict.state in FINISHED:
        note_end(delivery.job)
    return Consumed(payload, verdict, delivery)


def refuse_positional(worker: str, native_id: str) -> Consumed:
    """Refuse a job that the queue's own API sent with args by position: it ends here."""
    reason = (
        "they came by position, but a worker takes them by name: enqueue it with .new(), and in a "
        "chain or pipeline, do not pass on the result of the job before it"
    )
    name = brief(worker)  # of some queues it is what the message says, and no worker's
    return Consumed({}, _refused(name, InvalidArgsError("$", reason, name), native_id))


@dataclass(frozen=True, slots=True)
class Consumed:
    """What came of one delivery: its verdict, and the payload to send if the job goes on."""

    payload: Mapping[str, Any] = field(repr=False)  # tools that report an error show what is here
    verdict: Verdict
    delivery: Delivery | None = None

    def take_error(self) -> list[BaseException]:
        """Take the verdict's error out of it, if it has one: for who raises it, or is done with it.

        Otherwise the error's traceback and the frames of the consumer hold each other, and what
        the body had in hand, until the garbage is collected.
        """
        error, self.verdict.error = self.verdict.error, None
        return [] if error is None else [error]

    def following(self) -> dict[str, Any]:
        """Return the payload for the next run of a retryable or snoozed job."""
        state = self.verdict.state
        return self._next(failed=state == "retryable", snoozed=state == "scheduled")

    def by_hand(self, ended: int) -> dict[str, Any]:
        """Return the payload for a run that somebody asks for by hand after the job has ended.

        It repeats the last attempt, with one snooze more, so that its events get new ids.
        ``ended``: how many runs the queue will have counted by then.
        """
        payload = self._next(failed=False, snoozed=True)
        over = self.verdict.state in FINISHED and MARK in payload  # one refused unread too
        return payload | {ENDED: ended} if over else payload

    def _next(self, *, failed: bool, snoozed: bool) -> dict[str, Any]:
        if (delivery := self.delivery) is None:
            return dict(self.payload)  # it was not read, so nothing in it may change
        failures = delivery.failures + failed
        left = max(0, delivery.job.options.max_attempts - 1 - failures)  # after the next one
        return pack(
            delivery.job,
            failures=failures,
            snoozes=delivery.snoozes + snoozed,
            lost=min(delivery.lost + delivery.deliveries, left),
            unsigned=delivery.unsigned,
        )


class Counts(TypedDict, total=False):
    """What a queue itself counts for a job; for the rest, the envelope's counts hold.

    ``deliveries``: earlier deliveries of this run, none of which came to an end.
    ``lost``: such deliveries of earlier runs.
    """

    failures: int | None
    snoozes: int | None
    deliveries: int | None
    lost: int | None


def failures_in(payload: Mapping[str, Any]) -> int:
    """Return the failed attempts that an envelope counts; 0 for a hand-built job."""
    failures = payload.get("failures") if MARK in payload else 0
    return failures if type(failures) is int else 0


def ends_in(payload: Mapping[str, Any]) -> int:
    """Return how many of the runs that a queue counts came to an end, as the envelope says.

    These are its failed attempts or, for a job that ended and is run again by hand, ``ENDED``.
    """
    ended = payload.get(ENDED) if MARK in payload else None
    return ended if type(ended) is int else failures_in(payload)


def native(module: str, extra: str) -> Any:
    """Import a queue's package by name, so that type checkers see the same where it is missing.

    Raises ``MissingExtraError``, which names the extra to install and what is missing: the queue's
    own package, which has the extra's name, or else a package that it needs.
    """
    try:
        return import_module(module)
    except ImportError as error:
        installed = _is_installed(extra)
        if installed and not isinstance(error, ModuleNotFoundError):
            raise  # it is there, and broken
        raise MissingExtraError(extra, (installed and error.name) or extra) from error


def _is_installed(package: str) -> bool:
    """Tell whether a package can be found, which an import hook may refuse by an error."""
    try:
        return find_spec(package) is not None
    except ImportError:
        return False
