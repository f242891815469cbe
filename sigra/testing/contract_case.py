"""The common part of the conformance suite: use the backend under test, and wait for a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta, timezone
from typing import Any, ClassVar

import pytest

from sigra import config
from sigra.backend import Capability
from sigra.job import Job
from sigra.proxy import Worker
from sigra.testing.harness import Harness, Journal

AWAY = timezone(timedelta(hours=-5, minutes=-30))
"""A time zone in which few machines are: a moment is the same in each."""

IDS: dict[str, Any] = {"organization_id": "acme", "actor_id": "ann"}

# What a failure says to whoever writes the backend.
FOLLOWING = "the payload of the next run has to be consumed.following(), not what was delivered"
DUPLICATE = (
    "where an unfinished job holds unique_key(job), enqueue nothing and "
    "call job.accept(duplicate=True)"
)
SHOWN = "the queue has to show error_text(verdict.error), and the harness to return that"
DELIVERIES = (
    "a run that died with its consumer uses up an attempt: have the queue count each delivery "
    "before its body begins, and give consume the number of earlier ones as deliveries="
)


class ContractCase:
    """A backend under test, and what its consumers wrote down.

    ``delay``: the seconds by which tests delay a job; a queue that supports fractions may use less.
    """

    delay: ClassVar[float] = 1.0

    @pytest.fixture(autouse=True)
    def _on_this_backend(self, harness: Harness, journal: Journal) -> Iterator[None]:
        with config.configure(backend=harness.backend, backends={}):
            yield
            journal.clear()

    def _run(
        self,
        harness: Harness,
        journal: Journal,
        worker: Worker[..., Any],
        args: Mapping[str, Any],
        runs: int = 1,
        **options: Any,
    ) -> tuple[Job, list[dict[str, Any]]]:
        """Enqueue one job, wait until its body ran ``runs`` times, and return it and these runs."""
        job = worker.new(args, **options)
        what = f"run {runs} of {job.worker}"
        journal.wait(harness, lambda: len(journal.runs_of(job)) >= runs, what)
        return job, journal.runs_of(job)

    @staticmethod
    def _native_id(job: Job) -> str:
        """Return the queue's own id of a job."""
        assert job.native_id, "enqueue has to call job.accept(native_id=...) for each job"
        return job.native_id

    @staticmethod
    def _require(harness: Harness, *capabilities: Capability) -> None:
        for capability in capabilities:
            if capability not in harness.backend.capabilities:
                pytest.skip(f"backend {harness.backend.name!r} does not declare {capability!r}")
