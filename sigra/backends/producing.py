"""What the adapters share on the producer's side: checks, due dates, unique keys, errors."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

from sigra.backend import Capability
from sigra.backends.native_error import error_text as error_text  # noqa: PLC0414 - for others
from sigra.backends.native_error import has_no_answer
from sigra.errors import EnqueueError, InvalidOptionError, SigraError
from sigra.job import Job
from sigra.options import JobOptions

NO_TRANSACTION = "it is in no transaction, so the job could not be rolled back: begin one"
"""Why a ``conn`` that commits each statement at once is refused."""


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NO_DATE = datetime(9999, 1, 1, tzinfo=timezone.utc).timestamp()
"""From here on a date may be in no year in some time zone; this one is Django's for "at once"."""

_LONGEST = 500
"""Characters of a text, in any script, that fit an entry of PostgreSQL's indexes (2,704 bytes)."""


def able_to(*further: Capability) -> frozenset[Capability]:
    """Return the capabilities that all adapters of queues have, and the ``further`` ones of one."""
    return frozenset(("delay", "run_at", "max_attempts", "backoff", "native", *further))


SAMPLE: dict[str, Any] = {"args": ()}
"""What a serializer is tried with: jsonpickle writes the tuple as an object of its own."""


def require_json(written: bytes | str, writer: str, cure: str) -> None:
    """Raise ``ValueError``, which names the cure, if a queue's serializer wrote no JSON.

    ``written``: what it made of ``SAMPLE``.
    """
    try:
        pickled = "py/tuple" in str(json.loads(written))
    except ValueError:
        pickled = True
    if pickled:
        raise ValueError(
            f"{writer} does not write JSON (by pickle or jsonpickle, whoever can write to the "
            f"queue runs any code in its consumers): {cure}"
        )


def due_at(options: JobOptions) -> datetime | None:
    """Return when a job is due, as aware UTC; None for at once.

    Raises ``InvalidOptionError`` where that is beyond the year 9998.
    """
    now = time.time()
    due = options.due(now)
    if due <= now:
        return None
    if due >= _NO_DATE:
        name = "run_at" if options.delay is None else "delay"
        raise InvalidOptionError(name, "it must be before the year 9999 in UTC, as in every queue")
    return _EPOCH + timedelta(seconds=due)  # fromtimestamp() ends with the year 3000 on Windows


def seconds_until(options: JobOptions) -> float:
    """Return the seconds until a job is due, 0 for at once; raise as ``due_at`` does."""
    return 0.0 if due_at(options) is None else options.wait(time.time())


def unique_key(job: Job) -> str | None:
    """Return a job's key for a queue that keeps all workers' keys together; None without one."""
    if job.options.unique is None:
        return None
    # The first ":" ends the name, in which there is none: no other worker has the same key.
    name = job.worker.replace("%", "%25").replace(":", "%3A")
    key = f"{name}:{job.options.unique}"
    return key if len(key) <= _LONGEST else hashlib.sha256(key.encode()).hexdigest()


def check_texts(job: Job, longest: int = _LONGEST) -> None:
    """Raise ``InvalidOptionError`` for a unique key or a queue that PostgreSQL cannot hold.

    ``longest``: how many characters a queue's name may have.
    """
    unique, queue = job.options.unique or "", job.options.queue or ""
    for name, text in (("unique", unique), ("queue", queue)):
        if "\0" in text:
            raise InvalidOptionError(
                name, "it must not hold a NUL, which PostgreSQL cannot store", job.worker
            )
    check_length(job, len(queue), longest, "characters")


def check_on_rabbitmq(job: Job, suffix: str = "") -> None:
    """Raise ``InvalidOptionError`` for a queue whose name plus ``suffix`` RabbitMQ refuses."""
    queue = job.options.queue or ""
    if "\n" in queue or "\r" in queue:
        reason = "it must not hold line ends, which RabbitMQ leaves out of a queue's name"
        raise InvalidOptionError("queue", reason, job.worker)
    if queue.startswith("amq."):
        reason = "it must not begin with amq., which RabbitMQ keeps for itself"
        raise InvalidOptionError("queue", reason, job.worker)
    check_length(job, len(queue.encode()), 255 - len(suffix), "bytes of UTF-8")


def check_length(job: Job, length: int, longest: int, of: str) -> None:
    """Raise ``InvalidOptionError`` for a queue whose name is longer than ``longest``."""
    if length > longest:
        reason = f"a queue's name has at most {longest} {of} here, not {length}"
        raise InvalidOptionError("queue", reason, job.worker)


def accept(
    jobs: Sequence[Job], ids: Sequence[Any], held: Mapping[str | None, Any] = MappingProxyType({})
) -> None:
    """Give the jobs of a batch the ids from their queue; None: a job there holds their unique key.

    ``held``: by key, the ids of such jobs that are not of the batch, as far as the queue told them.
    """
    made = {unique_key(job): id for job, id in zip(jobs, ids, strict=True) if id is not None}
    for job, id in zip(jobs, ids, strict=True):
        key = unique_key(job)
        known = made.get(key, held.get(key)) if id is None else id
        job.accept(native_id=None if known is None else str(known), duplicate=id is None)


def require_conn(job: Job, wanted: str, *marks: str) -> None:
    """Raise ``InvalidOptionError``, with the cure, for a ``conn`` that no job can be part of.

    ``wanted``: the kinds of connection that the queue can write by. ``marks``: attributes;
    every such connection has at least one of them.
    """
    conn, kind = job.options.conn, type(job.options.conn)
    if conn is None:
        return
    if any(hasattr(conn, mark) for mark in marks):
        require_transaction(job, conn)
        return
    reason = f"it must be an open connection of {wanted}, not {kind.__module__}.{kind.__qualname__}"
    if kind.__module__.startswith("sqlalchemy."):
        reason += (
            "; SQLAlchemy holds one: session.connection().connection.driver_connection, or of an "
            "AsyncSession (await (await session.connection()).get_raw_connection())"
            ".driver_connection"
        )
    elif kind.__module__.startswith("django."):
        reason += "; Django holds one: django.db.connection.connection"
    elif kind.__module__.startswith(("psycopg2.", "asyncpg.")):
        reason += "; with SQLAlchemy make the engine of postgresql+psycopg://"
    raise InvalidOptionError("conn", reason, job.worker)


def require_transaction(job: Job, conn: Any) -> None:
    """Raise ``InvalidOptionError`` if a connection of asyncpg or psycopg would commit at once."""
    if hasattr(conn, "is_in_transaction"):
        at_once = not (conn.is_in_transaction() or conn.is_closed())  # which the driver tells
    else:
        at_once = getattr(conn, "autocommit", False) is True and conn.pgconn.transaction_status == 0
    if at_once:
        raise InvalidOptionError("conn", NO_TRANSACTION, job.worker)


def is_async(conn: Any) -> bool:
    """Tell whether a caller's connection has to be awaited."""
    return inspect.iscoroutinefunction(getattr(conn, "execute", None))


class sending:
    """Raise as ``EnqueueError`` what a queue raises while jobs are sent.

    ``jobs``: the batch, for a queue that takes one job after another; the error says how many
    it took (those on which ``accept`` was called), and which one it may have taken, where the
    answer is missing; not if the caller's transaction has them. ``whole``: for a queue that takes
    all of them, or none. ``commits``: as ``has_no_answer`` takes it.
    """

    __slots__ = ("_backend", "_commits", "_handled", "_jobs", "_whole")

    def __init__(
        self,
        backend: str,
        jobs: Sequence[Job] = (),
        *,
        whole: bool = False,
        commits: bool = False,
    ) -> None:
        self._backend, self._whole, self._commits = backend, whole, commits
        self._jobs = [job for job in jobs if job.options.conn is None]

    def __enter__(self) -> None:
        self._handled = sys.exception()  # it tells nothing of what is sent

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, SigraError):
            left = [job.id for job in self._jobs if job.native_id is None]
            missing = has_no_answer(error, self._handled, commits=self._commits)
            unsure = (left if self._whole else left[:1]) if missing else []
            sent = len(self._jobs) - len(left)
            cause = error.__cause__  # that of a timeout may be what was cancelled, which says less
            what = error_text(cause if isinstance(cause, Exception) else error).removesuffix(".")
            of = f"; {sent} of the batch's {len(self._jobs)} jobs were sent" if sent else ""
            cure = _see(unsure) if unsure else "Once that is fixed, "
            text = f"{what}{of}. {cure}enqueue {'the others' if sent else 'it'} again."
            raise EnqueueError(self._backend, text, tuple(unsure)) from error


def _see(unsure: Sequence[str]) -> str:
    which, runs = f"Job {unsure[0]}", "it runs"
    if len(unsure) > 1:
        which, runs = f"The batch's {len(unsure)} jobs", "they run"
    return f"{which} may have been sent all the same: see whether {runs} before you "
