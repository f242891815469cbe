"""The one ContextVar: which job runs here, if any."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sigra.job import Job, JobInfo
    from sigra.scope import AuditScope


class Running:
    """One attempt while it runs: what audit events and nested enqueues need to know.

    ``attempt`` counts from 1, ``snoozes`` from 0. ``ordinal`` counts the events that
    the body has logged. ``pump`` is the in-process backend's own: it tells there that
    the body enqueues from inside a job (None where jobs cross a queue).
    """

    __slots__ = ("_info", "attempt", "job", "ordinal", "pump", "scope", "snoozes")

    def __init__(
        self,
        job: Job,
        attempt: int,
        snoozes: int,
        scope: AuditScope | None = None,
        pump: object = None,
    ) -> None:
        self.job = job
        self.attempt = attempt
        self.snoozes = snoozes
        self.scope = scope
        self.pump = pump
        self.ordinal = 0
        self._info: JobInfo | None = None

    @property
    def info(self) -> JobInfo:
        """Return the attempt's facts: made on first demand, one object for the attempt."""
        if self._info is None:
            self._info = self.job.info(self.attempt, self.snoozes)
        return self._info


running: ContextVar[Running | None] = ContextVar("sigra_running", default=None)
"""The attempt that runs in this context. Set only inside the job's own context."""


def current_job() -> JobInfo | None:
    """Return the running job's ``JobInfo``, or None outside a job."""
    attempt = running.get()
    return None if attempt is None else attempt.info
