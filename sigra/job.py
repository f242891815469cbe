"""A job as its producer holds it, and as its body sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sigra.errors import UnsupportedError
from sigra.ids import uuid7_parts, uuid7_text

if TYPE_CHECKING:
    from sigra.definition import Definition
    from sigra.options import JobOptions

State = Literal[
    "available", "scheduled", "executing", "retryable", "completed", "discarded", "cancelled"
]
FINISHED: frozenset[str] = frozenset(("completed", "discarded", "cancelled"))
"""The states in which a job stays."""


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What a body can know of its own job.

    ``attempt`` counts from 1, and a snooze does not raise it; ``snoozes`` counts from 0.
    ``max_attempts`` is the last attempt's number: one less for each run that died with its
    consumer. ``enqueued_at`` is aware UTC.
    """

    id: str
    worker: str
    queue: str
    backend: str
    attempt: int
    max_attempts: int
    snoozes: int
    enqueued_at: datetime


class Ticket(Protocol):
    """A backend's answers about a job that it took."""

    def state(self) -> State:
        """Return where the job stands."""
        ...

    def result(self, timeout: float | None) -> Any:
        """Return or raise what the job ended with; ``TimeoutError`` while it has not."""

    async def aresult(self, timeout: float | None) -> Any:
        """Do the same without blocking the loop."""


@dataclass(slots=True, eq=False, repr=False)
class Job:
    """A job that was validated and handed to a backend.

    ``id`` (UUIDv7 text), ``worker`` (name), ``args`` (read-only), ``options``,
    ``backend`` (name), ``native_id`` (the queue's own id, or None) and ``duplicate``
    (True if nothing was enqueued, because an unfinished job has the ``unique`` key).
    """

    definition: Definition
    args: Mapping[str, Any]
    options: JobOptions
    backend: str
    stamp: tuple[int, int] = field(default_factory=uuid7_parts)
    """What the id is made of, unless one is given; its first part is when the job was made,
    in nanoseconds since 1970."""

    given_id: str | None = None
    """The id, once it is known as text."""

    native_id: str | None = None
    duplicate: bool = False
    ticket: Ticket | None = None

    @property
    def id(self) -> str:
        """Return the job's id: the same on the producer's and on the consumer's side."""
        if self.given_id is None:
            self.given_id = uuid7_text(self.stamp)
        return self.given_id

    @property
    def worker(self) -> str:
        """Return the worker's name."""
        return self.definition.name

    @property
    def queue(self) -> str:
        """Return the queue's name; "default" stands for the backend's own."""
        return self.options.queue or "default"

    @property
    def enqueued_at(self) -> datetime:
        """Return when ``.new()`` made the job (aware UTC)."""
        return datetime.fromtimestamp(self.stamp[0] / 1e9, timezone.utc)

    @property
    def state(self) -> str:  # not State: after one assert, checkers would narrow it to that value
        """Return where the job stands; ``UnsupportedError`` if the backend cannot tell."""
        return self._require("a job's state").state()

    def result(self, timeout: float | None = None) -> Any:
        """Return the value that the job ended with, waiting up to ``timeout`` seconds.

        Raises the function's own exception, ``JobFailedError`` for ``Failure``,
        ``JobCancelledError`` for ``Cancel``, ``TimeoutError`` while unfinished and
        ``UnsupportedError`` if the backend cannot tell.
        """
        return self._require("a job's result").result(timeout)

    async def aresult(self, timeout: float | None = None) -> Any:
        """Do the same as ``result`` without blocking the event loop."""
        return await self._require("a job's result").aresult(timeout)

    def accept(
        self, *, native_id: str | None = None, ticket: Ticket | None = None, duplicate: bool = False
    ) -> None:
        """Record what the backend said when it took the job; for backends only.

        ``ticket`` answers for its state and result. ``duplicate``: nothing was enqueued, because
        an unfinished job holds the ``unique`` key; ``native_id`` and ``ticket`` are then that
        job's, if the queue tells them.
        """
        # The ticket last: another thread that sees it relies on the rest.
        self.native_id, self.duplicate, self.ticket = native_id, duplicate, ticket

    def _require(self, feature: str) -> Ticket:
        if self.ticket is None:
            raise UnsupportedError(self.backend, feature)
        return self.ticket

    def __repr__(self) -> str:
        queue = f" queue={self.options.queue}" if self.options.queue else ""
        return f"<Job {self.id} of {self.worker} on {self.backend}{queue}>"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(repr(self))  # Hypothesis would show each field: args, and a secret in them
