"""The Backend port: what a queue must offer to carry Sigra's jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from sigra.job import Job

Capability = Literal[
    "queue",
    "priority",
    "delay",
    "run_at",
    "max_attempts",
    "backoff",
    "unique",
    "conn",
    "result",
    "native",
    "at_least_once",
    "at_most_once",
]
"""What a backend can do. All but the last four are options of ``.new()``, which refuses one that is
not declared. ``result``: ``Job.state`` and ``Job.result()`` answer. ``native``: jobs cross a queue
that has an API of its own, which can send them too. ``at_least_once``: no job is lost when a
consumer dies, whatever it was doing. ``at_most_once``: a job that the consumer had taken is lost.
With neither, see docs/backends.md."""


@runtime_checkable
class Backend(Protocol):
    """Carry jobs from ``.new()`` to where they run.

    A queue's consumer runs them with ``sigra.backends.external.consume`` or ``aconsume``.
    """

    name: str
    """The name in ``Job.backend``, in error messages and in the registry."""

    capabilities: frozenset[Capability]
    """What this backend honours; ``.new()`` refuses all other options before ``enqueue``."""

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Take all jobs, or raise ``EnqueueError`` and take none.

        Calls each job's ``accept`` with the queue's answer.
        """

    async def aenqueue(self, jobs: Sequence[Job]) -> None:
        """Do the same without blocking the running event loop."""
