"""Which job runs here, if any: a ContextVar."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sigra.ids import in_child, random_bits
from sigra.job import Job, JobInfo
from sigra.scope import AuditScope


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt while it runs: what audit events and nested enqueues need to know.

    ``number``: which attempt of the job it is, from 1. ``snoozes``: how often the job was snoozed
    before. ``ordinals``: numbers for the body's events, from 0. ``lost``: how many earlier runs
    ended with their consumer's death; each used up an attempt. ``pump``: tells an in-process
    backend that an enqueue comes from inside a job (None if jobs cross a queue). ``cut_off()``:
    words for the log line if the consumer itself has cut the run off and settles the job, otherwise
    "". ``closing()``: words if the backend is closing, so that the job may not run again, otherwise
    "".
    """

    job: Job
    number: int
    snoozes: int
    scope: AuditScope | None = None
    pump: object = None
    lost: int = 0
    cut_off: Any = str  # str() is "", as of a run that nobody cut off
    closing: Any = str
    ordinals: Any = field(default_factory=count)  # a step is atomic, += is not
    _info: JobInfo | None = field(default=None, init=False)

    @property
    def info(self) -> JobInfo:
        """Return the attempt's facts: made on first demand, one object for the attempt."""
        if self._info is None:
            job, most = self.job, self.job.options.max_attempts - self.lost
            facts = job.id, job.worker, job.queue, job.backend, self.number, most, self.snoozes
            self._info = JobInfo(*facts, job.enqueued_at)
        return self._info


running: ContextVar[Attempt | None] = ContextVar("sigra_running", default=None)
"""The attempt that runs in this context. Set only inside the job's own context."""


def _part_from_parent() -> None:
    """Give a child that a body forked numbers of its own for its events, and let it run its jobs.

    Its siblings would go on from the same number, and nobody in the child works the body's pump.
    """
    if attempt := running.get():
        attempt.ordinals, attempt.pump = count(random_bits(62)), None


in_child(after_in_child=_part_from_parent)


def current_job() -> JobInfo | None:
    """Return the running job's ``JobInfo``, or None outside a job."""
    return attempt.info if (attempt := running.get()) else None
